"""Large images in overlapping tiles: where they are, how what is found in them is merged, data sets of them."""
