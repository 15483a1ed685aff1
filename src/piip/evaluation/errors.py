"""What kind of error costs how much of AP50, and which labels look wrong, as hotcoco finds them.

The kinds are TIDE's (Bolya et al., ECCV 2020, arXiv 2008.08115): what AP50 would gain if all errors of one kind were
mended and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from piip.evaluation.ground_truth import ground_truth, image_numbers, renumbered
from piip.prediction.coco import CocoResult

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData

KINDS = {
    "localisation": "Loc",
    "class": "Cls",
    "class_and_localisation": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
"""ours by hotcoco's: the right class in about the right place; another class in the right place, or in about the right
place; an object found again; nothing there; an object that no detection is near"""
RIGHT, ABOUT = 0.5, 0.1
"""overlap from which a place is right, and from which it is about right"""
CONFIDENT = 0.5
"""score from which a detection that no label explains speaks against the labels"""


def errors_of(results: list[CocoResult], data: CocoData, *, masks: bool) -> dict[str, Any]:
    """The costs of each kind of error of boxes (and masks), and labels that may be wrong.

    Raises ImportError, with what to install, where hotcoco is missing.
    """
    shapes = {"box": "bbox"} | ({"mask": "segm"} if masks else {})
    found: dict[str, Any] = {"iou": RIGHT, "about": ABOUT}
    for name, kind in shapes.items():
        evaluator = counted(results, data, kind)
        tide = evaluator.tide_errors(pos_thr=RIGHT, bg_thr=ABOUT)
        found[name] = {
            "AP50": tide["ap_base"],
            "cost": {ours: tide["delta_ap"][theirs] for ours, theirs in KINDS.items()},
            "count": {ours: tide["counts"][theirs] for ours, theirs in KINDS.items()},
            "all_false_positives": tide["delta_ap"]["FP"],
            "all_false_negatives": tide["delta_ap"]["FN"],
        }
        if name == "box":
            found["label_errors"] = _label_errors(evaluator, data)
    return found


def counted(results: list[CocoResult], data: CocoData, kind: str) -> Any:
    """A hotcoco evaluator that has counted `results`; kind: "bbox" or "segm"."""
    try:
        from hotcoco import COCO, COCOeval
    except ImportError:
        raise ImportError('kinds of errors need hotcoco: pip install "piip[train]"') from None
    numbers = image_numbers(data)
    truth = COCO(ground_truth(data, numbers, kind))
    evaluator = COCOeval(truth, truth.load_res(renumbered(results, data, numbers, kind)), kind)
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator


def _label_errors(evaluator: Any, data: CocoData) -> list[dict[str, Any]]:
    """Confident detections that the labels contradict, the most confident first."""
    numbers = image_numbers(data)
    images = {numbers[image.id]: image for image in data.images}
    suspects = evaluator.image_diagnostics(iou_thr=RIGHT, score_thr=CONFIDENT)["label_errors"]
    found = []
    for suspect in sorted(suspects, key=lambda suspect: -suspect["dt_score"]):
        (detection,) = evaluator.coco_dt.load_anns([suspect["dt_id"]])
        label = suspect["gt_category_id"]
        found.append(
            {
                "what": "wrong class" if suspect["type"] == "wrong_label" else "not annotated",
                "image": images[suspect["image_id"]].path.name,
                "image_id": images[suspect["image_id"]].id,
                "annotated": None if label is None else data.classes[label - 1],
                "found": data.classes[suspect["dt_category_id"] - 1],
                "score": suspect["dt_score"],
                "bbox": list(detection["bbox"]),
            }
        )
    return found


def error_table(errors: Mapping[str, Any]) -> Table:
    """What each kind of error costs, in percent of AP50."""
    parts = {name: errors[name] for name in ("box", "mask") if name in errors}
    table = Table(title="What errors cost: AP50 that mending them would gain")
    table.add_column("kind of error")
    for name in parts:
        table.add_column(f"{name} AP50", justify="right")
        table.add_column("errors", justify="right")
    for kind in KINDS:
        cells = ((f"{100 * part['cost'][kind]:.1f}", str(part["count"][kind])) for part in parts.values())
        table.add_row(kind.replace("_", " "), *(cell for pair in cells for cell in pair))
    return table
