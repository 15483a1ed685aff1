"""Annotations of other tools, brought into COCO's form: `records` says what that is, a file per format reads one.

Everything after that, the checks, the repairs and their report, is the same as for COCO's own files.
"""
