"""Large images in overlapping tiles: where the tiles are, and how what is found in them becomes one result."""
