"""What users hold. `PIIP` is put together from what it can do, a file each."""

from piip.api.comparing import compare
from piip.api.piip import PIIP
from piip.api.together import predict_together

__all__ = ["PIIP", "compare", "predict_together"]
