"""Training: settings, optimizer, one loop for all tasks, checkpoints, curves."""
