"""What reading the data found goes with it into training and evaluation: a line, a file, or an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from piip.console import shortened
from piip.data.report import NO_OBJECTS, DataError, Findings, Severity
from piip.data.whole_images import UNDECODABLE
from piip.files import write_json
from piip.tasks.task import Data

FINDINGS_FILE = "data_findings.json"
KINDS = 3
"""of one severity, that the line names"""
USUAL = ("", "COCO", "YOLO", "images and masks", "class folders", "table of images")
"""formats that the line does not name; other tools' it does"""
BROKEN_LATER = "image that could not be read when its turn came"
"""the finding of an evaluation; the check before it had nothing against the file"""
LEAST_USABLE = 0.5
"""share of the listed images; the figure of an evaluation over fewer would pass for that of all"""
_TOLD: Mapping[Severity, str] = {"error": "wrong", "left out": "left out", "repaired": "repaired"}


def require_enough(split: str, data: Data) -> None:
    """DataError where nothing sensible can come of a training or evaluation on `data`."""
    report: Findings = data.report
    if split == "train":
        nothing = report.find(NO_OBJECTS)
        if nothing is not None:
            raise DataError(f"{report.file}: {NO_OBJECTS}: {nothing.examples[0]} "
                            "(`piip data check` lists what was found)")  # fmt: skip
    elif report.images < LEAST_USABLE * report.listed:
        missing = report.listed - report.images
        raise DataError(f"{report.file}: {missing} of its {report.listed} images are left out, and figures over the "
                        f"rest would not be those of the data{report.first_reason()}. Bring the images, or list only "
                        "those that are there (`piip data check` lists what was found)")  # fmt: skip


def leave_out(data: Data, broken: Mapping[Path, str], split: str) -> Data:
    """`data` without the images whose files are in `broken`, with what is wrong with them: findings of its report.

    Training data keep them, so that the order of the others stays as it is: a training has others in their places.

    Raises DataError where no image is left.
    """
    reasons = [broken[image.path] for image in data.images if image.path in broken]
    if not reasons:
        return data
    report: Findings = data.report
    for reason in reasons:
        report.add("left out", UNDECODABLE, reason)
    report.images -= len(reasons)
    kept = type(data.images)(image for image in data.images if image.path not in broken)
    if not kept:
        raise DataError(f"{report.file}: none of its {len(reasons)} images can be decoded; first: {reasons[0]}")
    return data if split == "train" else replace(data, images=kept)


def note_unreadable(data: Data, problems: Sequence[str]) -> str:
    """Add images that could not be read in an evaluation to the findings of `data`; a line that says so."""
    report: Findings = data.report
    for problem in problems:
        report.add("left out", BROKEN_LATER, problem)
    report.images -= len(problems)
    count = f"{len(problems)} image{'s' * (len(problems) > 1)}"
    return f"the figures are without {count} that could not be read after all: {shortened(list(problems), KINDS)}"


def in_a_line(opened: Mapping[str, Data]) -> str | None:
    """What was left out, repaired and found wrong in each split, shortly; None where nothing was.

    Other tools' formats are named in any case.
    """
    told = {split: _of_one(data.report) for split, data in opened.items()}
    parts = [f"{split}: {text}" for split, text in told.items() if text]
    formats = dict.fromkeys(data.report.format for data in opened.values() if data.report.format not in USUAL)
    written = f" ({', '.join(formats)})" if formats else ""
    return f"data{written}: " + (". ".join(parts) or "nothing to remark") if parts or formats else None


def write_findings(opened: Mapping[str, Data], path: Path) -> None:
    """All findings of each split with their examples, as `piip data check --json` writes them."""
    write_json(path, {split: data.report.to_dict() for split, data in opened.items()}, indent=2)


def _of_one(report: Findings) -> str:
    parts = []
    missing = report.listed - report.images
    if missing > 0:
        parts.append(f"{missing} of {report.listed} images are left out")
    for severity, word in _TOLD.items():
        kinds = [f"{finding.kind} ({finding.count})" for finding in report.sorted_findings()
                 if finding.severity == severity]  # fmt: skip
        if kinds:
            parts.append(f"{word}: {shortened(kinds, KINDS)}")
    return "; ".join(parts)
