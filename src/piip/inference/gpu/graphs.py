"""The backbone of a copy for inference as CUDA graphs: one launch in place of some thousand, for sizes that come again.

A graph is captured for a size of batch, a dtype and a precision once they have been seen twice, and kept while it is
used; everything else runs as it is. Nothing here matters on a CPU.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from piip.backbone.piip import PIIPBackbone
from piip.lean.gpu import sampling
from piip.model import PIIPModel
from piip.structures import BranchState, View

DEVICES = ("cuda",)
SEEN = 2
"""batches of a kind that run as they are before the next is captured; they also try kernels and make workspaces"""
SEEN_AGAIN = 20
"""the same after a graph of this kind had to go"""
MOST = 8
"""graphs of a backbone"""
SHARE = 0.25
"""of the device's memory that they may hold together"""
MOST_KINDS = 256
"""that are counted"""

Outputs = TypeVar("Outputs", list[Tensor], list[BranchState])
Key = tuple[object, ...]
Version = tuple[tuple[int, int], ...]


class Captured(NamedTuple):
    """A graph with the memory that it reads and writes."""

    replay: Callable[[], None]
    images: Tensor
    outputs: Any
    bytes: int

    def __call__(self, images: Tensor) -> Any:
        """The outputs, which are the caller's own."""
        self.images.copy_(images)
        self.replay()
        return [_cloned(output) for output in self.outputs]


class Graphs:
    """The graphs of one backbone, the least recently used first, and what was seen so far.

    Args:
        capture: makes a graph of a function of images
        limit: bytes that all graphs may hold on a device
    """

    def __init__(
        self,
        capture: Callable[[Callable[[Tensor], Any], Tensor], Captured] | None = None,
        limit: Callable[[torch.device], float] | None = None,
    ) -> None:
        self.capture, self.limit = capture or capture_on_gpu, limit or _share_of_memory
        self.kept: OrderedDict[Key, Captured] = OrderedDict()
        self.left: OrderedDict[Key, float] = OrderedDict()  # batches to be seen, of each kind
        self.weights: Version = ()
        self.failed = False
        self._parts: list[nn.Module] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles begin anew."""
        return Graphs, ()

    def run(self, backbone: nn.Module, name: str, plain: Callable[[Tensor], Outputs], images: Tensor) -> Outputs:
        """What `plain`, the backbone's function of this name, gives for images."""
        if self._parts is None:
            self._parts = list(backbone.modules())[1:]  # hooks of the backbone itself run around its function
        if self.failed or any(map(_has_hooks, self._parts)):
            return plain(images)
        key = (name, *images.shape, images.dtype, images.device, *_circumstances(images.device))
        with self._lock:  # memory is written and read in turn
            captured = self._find(key, _version(self._parts)) or self._make(key, plain, images)
            if captured is not None:
                outputs: Outputs = captured(images)
                return outputs
        return plain(images)

    def clear(self) -> None:
        """Let all graphs go."""
        self.kept.clear()

    def _find(self, key: Key, weights: Version) -> Captured | None:
        if weights != self.weights:  # graphs would read what was there before, or what was made from it
            self.clear()
            self.left.clear()
            self.weights = weights
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def _make(self, key: Key, plain: Callable[[Tensor], Any], images: Tensor) -> Captured | None:
        """A new graph if it is time for it and all goes well."""
        left = self.left.setdefault(key, SEEN)
        self.left.move_to_end(key)
        if len(self.left) > MOST_KINDS:
            self.left.popitem(last=False)
        if left > 0:
            self.left[key] = left - 1
            return None
        try:
            captured = self.capture(plain, images)
        except Exception as error:  # whatever the driver says: the model runs without
            self.failed = True
            self.clear()
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            warnings.warn(f"CUDA graphs have no effect here, the model runs without them: {reason}", stacklevel=2)
            return None
        limit = self.limit(images.device)
        if captured.bytes > limit:
            self.left[key] = float("inf")
            return None
        self.kept[key] = captured
        while len(self.kept) > MOST or sum(one.bytes for one in self.kept.values()) > limit:
            oldest, _ = self.kept.popitem(last=False)
            self.left[oldest] = SEEN_AGAIN
        return captured


class ReplayedBackbone(PIIPBackbone):
    """A backbone that runs as graphs where that gives the same: of images alone, in inference mode, on CUDA devices."""

    graphs: Graphs

    def forward(self, images: Tensor, views: Sequence[View | None] = ()) -> list[Tensor]:
        """See `PIIPBackbone`."""
        if not can_be_replayed(self, images, views):
            return super().forward(images, views)
        return self.graphs.run(self, "forward", super().forward, images)

    def states(self, images: Tensor, views: Sequence[View | None] = ()) -> list[BranchState]:
        """See `PIIPBackbone`."""
        if not can_be_replayed(self, images, views):
            return super().states(images, views)
        return self.graphs.run(self, "states", super().states, images)


def set_graphs(model: nn.Module, on: bool) -> None:
    """Let the backbone of a copy for inference on a CUDA device run as graphs, or no longer."""
    backbone = model.backbone if isinstance(model, PIIPModel) else None
    if on and type(backbone) is PIIPBackbone and next(backbone.parameters()).device.type in DEVICES:
        backbone.__class__ = ReplayedBackbone
        backbone.graphs = Graphs()  # type: ignore[assignment]
    elif not on and type(backbone) is ReplayedBackbone:
        del backbone.graphs
        backbone.__class__ = PIIPBackbone  # type: ignore[assignment]


def can_be_replayed(backbone: ReplayedBackbone, images: Tensor, views: Sequence[View | None]) -> bool:
    """For this call. Functions that somebody has put in place of the backbone's own are not passed over."""
    if views or backbone.training or images.device.type not in DEVICES or not torch.is_inference_mode_enabled():
        return False
    if torch.compiler.is_compiling() or not {"embed", "run_group"}.isdisjoint(vars(backbone)):
        return False
    return images.device.type != "cuda" or not torch.cuda.is_current_stream_capturing()


def capture_on_gpu(function: Callable[[Tensor], Any], images: Tensor) -> Captured:
    """A graph of `function`, with memory of its own."""
    kind = images.device.type
    # Casted weights that autocast keeps for later would lie outside the graph's memory.
    uncached = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), False)
    with torch.cuda.device(images.device), uncached:
        own = images.clone(memory_format=torch.contiguous_format)
        current = torch.cuda.current_stream()
        side = _stream(images.device, current.cuda_stream)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            function(own)
        current.wait_stream(side)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            outputs = function(own)
        return Captured(graph.replay, own, outputs, torch.cuda.memory_reserved() - before)


@cache
def _stream(device: torch.device, of: int) -> torch.cuda.Stream:
    """On which all graphs for a stream of the caller's (`of`) are captured.

    Libraries keep a workspace for each stream, and a graph works in that of its capture: graphs for two streams of the
    caller's may run at the same time, those for one follow each other.
    """
    return torch.cuda.Stream(device)


def _share_of_memory(device: torch.device) -> float:
    return SHARE * torch.cuda.get_device_properties(device).total_memory


def _circumstances(device: torch.device) -> Key:
    """All but the images that decides what is computed, or in which order."""
    kind, stream = device.type, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    precisions = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return stream, *precisions, *autocast, torch.are_deterministic_algorithms_enabled(), sampling.enabled


def _version(parts: Sequence[nn.Module]) -> Version:
    """Where the weights lie, and how often they were written to; as `copies.version`, of modules that are known."""
    tensors = (tensor for part in parts for own in (part._parameters, part._buffers) for tensor in own.values())
    return tuple(
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors if tensor is not None
    )


def _has_hooks(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks)


def _cloned(output: Any) -> Any:
    if not isinstance(output, BranchState):
        return output.clone()
    prefix = None if output.prefix is None else output.prefix.clone()
    return output._replace(tokens=output.tokens.clone(), prefix=prefix)
