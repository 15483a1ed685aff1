"""`piip data tile`: a data set of large images, cut into tiles and written anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from piip.config import Task
from piip.data.conversion.convert import Converted
from piip.data.conversion.new_folder import new_folder
from piip.data.kinds import kind_of_data
from piip.data.report import DataError, Findings
from piip.data.windows import headers_up_to
from piip.files import write_json
from piip.tiles.grid import OVERLAP
from piip.tiles.label_tiles import tile_labels
from piip.tiles.object_tiles import Cutting, tile_objects

FINDINGS_FILE = "tiles.json"


def tile_data(
    source: str | Path,
    out: str | Path,
    size: int = 1024,
    overlap: float = OVERLAP,
    keep: float = 0.3,
    empty: float = 0.1,
    task: Task | None = None,
    max_pixels: int | None = None,
) -> Converted:
    """Cut the images of the data set at `source` into tiles, and write them with their annotations to `out`.

    Objects are written as COCO files with all splits: boxes, polygons and run lengths clipped, crowd regions kept, ids
    of categories too; `tile_of` and `part_of` in the file say which image and annotation a tile and an object are from.
    Of label masks the same parts as of the images are written. Tiles of JPEGs are JPEGs of quality 95, all others PNG;
    an image no larger than a tile is copied. What was left out is in the reports, which count tiles, and in
    `tiles.json` there.

    Args:
        source: a folder or an annotation file of objects, or a folder of images and label masks.
        out: a folder that is not there yet, or is empty: nothing is ever written over.
        size: side of a tile in pixels of the images.
        overlap: share of the side that neighbours have in common at least.
        keep: objects of whose box less than this share is in a tile are left out of it.
        empty: share of a split's tiles that may be without objects; 1: all that there are.
        task: which data to take from a folder that fits several.
        max_pixels: objects: width times height of an image at most, where that is more than is decoded otherwise;
            tiles of larger ones, and of TIFFs of other kinds of pixels, are read one by one, see `data.windows`.

    Raises:
        DataError: no data set, or a split of it that cannot be used, or one of classes of whole images.
        ValueError: `out` is taken, or lies within `source`; or values that are no sizes or shares; `max_pixels` with
            label masks, which are decoded whole.
        ImportError: with `max_pixels`, rasterio is not installed.
    """
    out = Path(out)
    cutting = Cutting(size, overlap, keep, empty, max_pixels)
    with headers_up_to(max_pixels):
        kind = task or kind_of_data(source)
    if kind == "classification":
        raise DataError(f"{source}: classes of whole images say nothing about tiles; tiles are for objects and masks")
    if kind == "segmentation" and max_pixels is not None:
        raise ValueError("max_pixels: only for objects; label masks are decoded whole with their images")
    with new_folder(source, out) as unfinished:
        reports: Mapping[str, Findings]
        if kind == "detection":
            reports = tile_objects(source, unfinished, cutting)
        else:
            reports = tile_labels(source, unfinished, size, overlap)
        findings = {split: report.to_dict() for split, report in reports.items()}
        settings = {"size": size, "overlap": overlap, "keep": keep, "empty": empty}
        write_json(unfinished / FINDINGS_FILE, {"source": str(source), **settings, "splits": findings}, indent=2)
    return Converted(out, reports)
