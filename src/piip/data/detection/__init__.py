"""Annotated objects: found (`splits`), read and repaired (`coco`, `yolo`), checked, transformed, handed out.

A file's records become `annotations.CocoData`; `dataset` makes samples of it.
"""
