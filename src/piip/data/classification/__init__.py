"""Classified images: found in class folders or tables (`splits`), checked (`images`), transformed, handed out."""
