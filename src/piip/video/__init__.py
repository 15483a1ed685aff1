"""Clips: frames in, results with their time stamps and an annotated clip out."""
