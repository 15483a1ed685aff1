"""`piip data convert`: read a data set of any format as training would, and write what is usable of it anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from piip.config import Task
from piip.data.classification import images as classes
from piip.data.classification.splits import find_class_splits
from piip.data.conversion.classified import write_classified
from piip.data.conversion.coco import write_coco
from piip.data.conversion.labelled import write_labelled
from piip.data.conversion.new_folder import new_folder
from piip.data.conversion.together import of_one_list
from piip.data.conversion.unpacked import unpacked
from piip.data.conversion.yolo import write_yolo
from piip.data.detection.coco import read_split
from piip.data.detection.splits import find_splits
from piip.data.kinds import kind_of_data
from piip.data.report import Findings
from piip.data.segmentation.folders import find_mask_splits
from piip.data.segmentation.masks import open_masks
from piip.files import write_json

LAYOUTS = {"coco": write_coco, "yolo": write_yolo}
"""of objects; classified images become tables with images, label masks stay masks, whatever is asked for"""
FINDINGS_FILE = "conversion.json"


class Converted(NamedTuple):
    """What was written."""

    folder: Path
    reports: Mapping[str, Findings]
    """of each split: what was left out or repaired, by the reader or because the layout cannot say it"""


def convert_data(source: str | Path, out: str | Path, to: str = "coco", task: Task | None = None) -> Converted:
    """Read the data set at `source`, whatever its format, and write it to the new folder `out`.

    Objects are written as COCO files or, with `to="yolo"`, as YOLO's; classified images as images with a table for each
    split; images with label masks as folders of both. Images are copied, not encoded again. What was left out is in
    the reports, and in `conversion.json` there.

    Args:
        source: a folder or an annotation file; Hugging Face's .parquet files are unpacked (extra `parquet`).
        out: a folder that is not there yet, or is empty: nothing is ever written over.
        to: "coco" or "yolo".
        task: which data to take from a folder that fits several.

    Raises:
        DataError: no data set, or a split of it that cannot be used.
        ValueError: `out` is taken, or lies within `source`; or an unknown `to`.
    """
    out = Path(out)
    if to not in LAYOUTS:
        raise ValueError(f"{to!r} is no layout to convert to; use {' or '.join(LAYOUTS)}")
    with new_folder(source, out) as unfinished, unpacked(source, unfinished.parent) as place:
        reports = _WRITERS[task or kind_of_data(place)](place, unfinished, to)
        findings = {split: report.to_dict() for split, report in reports.items()}
        write_json(unfinished / FINDINGS_FILE, {"source": str(source), "splits": findings}, indent=2)
    return Converted(out, reports)


def _objects(source: str | Path, out: Path, to: str) -> Mapping[str, Findings]:
    opened = {str(split): read_split(place) for split, place in find_splits(source).items()}
    reports = {split: report for split, (_, report) in opened.items()}
    LAYOUTS[to](of_one_list({split: data for split, (data, _) in opened.items()}), out)
    return reports


def _classified(source: str | Path, out: Path, to: str) -> Mapping[str, Findings]:
    opened = {str(split): classes.read_split(place) for split, place in find_class_splits(source).items()}
    write_classified({split: data for split, (data, _) in opened.items()}, out)
    return {split: report for split, (_, report) in opened.items()}


def _labelled(source: str | Path, out: Path, to: str) -> Mapping[str, Findings]:
    opened = {str(split): open_masks(source, split) for split in find_mask_splits(source)}
    write_labelled(opened, out)
    return {split: data.report for split, data in opened.items()}


_WRITERS = {"detection": _objects, "classification": _classified, "segmentation": _labelled}
