"""torch.compile as an option, and how to do without a compiler."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError, InvalidCxxCompiler

from piip.console import PIIPWarning
from piip.model import PIIPModel

NO_COMPILER = (BackendCompilerFailed, InductorError, InvalidCxxCompiler)
"""what torch raises, on the first run, where its backend cannot work: no C++ compiler, no Triton"""


class Compiled:
    """A function that is compiled for each size of its inputs on first use, and runs as it is where that fails.

    Args:
        function: of tensors, without graph breaks
        backend: of `torch.compile`
        before: called with the inputs of each new size before that is compiled: makes what is the same for all images
    """

    def __init__(
        self, function: Callable[..., Any], backend: str = "inductor", before: Callable[..., Any] | None = None
    ) -> None:
        self.function, self.before = function, before
        self._sizes: set[torch.Size] = set()
        self.fast: Callable[..., Any] | None = torch.compile(function, backend=backend, dynamic=False)

    def __call__(self, *inputs: Any) -> Any:
        """What `function` returns."""
        if self.fast is None:
            return self.function(*inputs)
        if self.before is not None and inputs[0].shape not in self._sizes:
            self._sizes.add(inputs[0].shape)
            self.before(*inputs)
        try:
            return self.fast(*inputs)
        except NO_COMPILER as error:
            self.fast = None
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(
                f"compile=True has no effect here, the model runs uncompiled: {reason}", PIIPWarning, stacklevel=2
            )
            return self.function(*inputs)


def compile_backbone(model: PIIPModel, backend: str = "inductor") -> None:
    """Compile a model's backbone in place; the head, whose shapes depend on what it finds, stays as it is.

    For images of few fixed sizes: each new size is compiled anew, which takes minutes for large models. On CPUs it has
    been slower than without where measured, see `docs/speed.md`; so nothing does it unasked.
    """
    backbone = model.backbone
    for name in ("forward", "states"):
        setattr(backbone, name, Compiled(getattr(backbone, name), backend, before=backbone.embed))
