"""From image files and annotations to batches: decode, check, transform, load.

`splits` finds the annotation files in a folder, `coco` reads and repairs one, `check` reports on it, `detection`
and `batches` turn it into what the training loop and the evaluation take. `synthetic` draws a small set.
"""
