"""Modules that compute what the paper's compute with fewer operations and less memory, gradients included.

A lean module is a subclass of the one it stands for and has its parameters, buffers and names: only its forward is
another. Where a call is not what it was made for (another device, autocast, a tracer) it runs as the plain one.
`inference.choice` decides which stands where.
"""
