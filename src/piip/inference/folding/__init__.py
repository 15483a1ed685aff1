"""Linear maps that meet become one: the arithmetic (`affine`), and a file per part of a model."""
