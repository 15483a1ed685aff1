"""What copies for inference run on a CUDA device: fewer passes over the tensors, fewer launches."""
