"""Weights in and out: model files, official configs and checkpoints, pretrained branches."""
