"""Scores of predictions against annotations, and the pictures that explain them."""
