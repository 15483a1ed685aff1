"""Pickles of strangers as plain data: opcodes, what names may make, tensors, and the two formats of PyTorch files."""
