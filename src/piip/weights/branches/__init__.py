"""Pretrained backbones as the beginning of branches: their publishers' file formats, and how they are fitted."""
