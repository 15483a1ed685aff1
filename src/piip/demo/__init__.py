"""The demo: pictures of fruit made on the spot, a small Mask R-CNN that learns one more of them, and what it finds."""

from piip.demo.run import run_demo

__all__ = ["run_demo"]
