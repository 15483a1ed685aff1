"""An image predicted in tiles: a batch of them after the other, and one result of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.progress import track

from piip import config
from piip.console import Terminal
from piip.prediction.label_map import SegmentationResult
from piip.prediction.objects import Result
from piip.prediction.options import Options
from piip.prediction.sources import InParts
from piip.structures import Prediction
from piip.tiles.found import Found
from piip.tiles.grid import Tile, grid
from piip.tiles.label_maps import joined
from piip.tiles.merging import merged

Run = Callable[[Sequence[Tile]], Sequence[Prediction]]
"""from tiles of the image, of one size, to their predictions"""
SHOWN_FROM = 8
"""batches of tiles, of which a terminal shows the progress"""


def predict_in_tiles(
    run: Run, image: InParts, described: config.Model, options: Options
) -> Result | SegmentationResult:
    """The result of one image by `options.tiles` and `options.overlap`.

    No more than a batch of tiles is with the model at a time. An image no larger than a tile gives what it gives
    without tiles. Objects are joined as `tiles.merging` says; of a label map each pixel is the tile's in which it lies
    deepest.

    Raises:
        ValueError: the model classifies images.
    """
    assert options.tiles is not None
    refuse_classifier(described)
    size = image.picture.size
    tiles = grid(size, options.tiles, options.overlap)
    found = _predictions(run, tiles, options.batch_size)
    if described.task == "segmentation":
        return SegmentationResult.of(joined(found, tiles, size), described, image.picture, image.path)
    prediction, masks = merged(Found.of(found, size))
    result = Result(prediction["boxes"], prediction["scores"], prediction["labels"], described.classes, image.picture,
                    masks, image.path, described.category_ids)  # fmt: skip
    return result if options.detections is None else result[: options.detections]


def refuse_classifier(described: config.Model) -> None:
    """ValueError for a model whose tiles could not become one result."""
    if described.task == "classification":
        raise ValueError(f"tiles: {described.name} gives an image one class, which tiles of it do not have; tiles are "
                         "for detection and segmentation")  # fmt: skip


def _predictions(run: Run, tiles: Sequence[Tile], batch_size: int) -> Iterator[tuple[Tile, Prediction]]:
    batches = [tiles[start : start + batch_size] for start in range(0, len(tiles), batch_size)]
    console = Terminal(stderr=True)
    hidden = len(batches) < SHOWN_FROM or not console.is_terminal
    for batch in track(batches, "tiles", console=console, transient=True, disable=hidden):
        yield from zip(batch, run(batch), strict=True)
