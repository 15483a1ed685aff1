"""What users hold. `PIIP` is put together from what it can do, a file each."""

from piip.api.piip import PIIP

__all__ = ["PIIP"]
