"""What copies for inference run on a CPU: in pieces that stay in the cache, and in place."""
