"""Deformable attention on CUDA devices, with gradients."""
