"""What was found wrong in a data set, and what was done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from piip.console import encodable, printable

Severity = Literal["error", "repaired", "left out", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "left out", "repaired", "note")
"""worst first. "error": must be mended by hand before training means anything; "left out": an image, an object or
an outline that is not used; "repaired": used, after a change; "note": used as it is, worth knowing"""

NO_OBJECTS = "no objects at all"
"""the finding of a split on which no detector can be trained"""
OF_LEFT_OUT = "object of an image that is left out"
"""the finding that follows from one about an image"""
EXAMPLES = 5
"""kept per finding"""
LISTED_CLASSES = 60
"""rows of the table of classes"""

_COLOURS = {"error": "bold red", "left out": "yellow", "repaired": "cyan", "note": "dim"}


class DataError(ValueError):
    """A data set that cannot be used at all; the message names the file and says what would work."""


@dataclass
class Finding:
    """One kind of fault: how often it was met, and where first."""

    severity: Severity
    kind: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
    """naming ids and files, at most `EXAMPLES`"""


@dataclass
class Findings:
    """All findings of one part of a data set. The reports of the kinds of data add what remains of it."""

    file: str
    """the annotation file or folder"""
    images: int = 0
    class_counts: dict[str, int] = field(default_factory=dict)
    """objects (crowds not counted), pixels or images per class, in label order"""
    findings: list[Finding] = field(default_factory=list)
    listed: int = 0
    """images that the annotations speak of, usable or not"""
    format: str = ""
    """how the data is written, as people call it"""

    def add(self, severity: Severity, kind: str, example: str) -> None:
        """Count one more case of `kind`; `example` says where."""
        finding = self.find(kind, severity)
        if finding is None:
            finding = Finding(severity, kind)
            self.findings.append(finding)
        finding.count += 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(printable(example))

    def find(self, kind: str, severity: Severity | None = None) -> Finding | None:
        """The finding of this kind (and severity, if given), or None if there was no case of it."""
        for finding in self.findings:
            if finding.kind == kind and severity in (None, finding.severity):
                return finding
        return None

    def sorted_findings(self) -> list[Finding]:
        """Worst first, then the most frequent."""
        return sorted(self.findings, key=lambda f: (SEVERITIES.index(f.severity), -f.count, f.kind))

    def first_reason(self) -> str:
        """The worst finding that follows from no other, with an example, to end a message with; else nothing."""
        findings = [finding for finding in self.sorted_findings() if finding.kind != OF_LEFT_OUT]
        return f"; first: {findings[0].kind}, {findings[0].examples[0]}" if findings else ""

    @property
    def errors(self) -> int:
        """Number of cases with severity "error"."""
        return sum(finding.count for finding in self.findings if finding.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        return {
            "file": encodable(self.file),
            "format": self.format,
            "images": self.images,
            "class_counts": encodable_keys(self.class_counts),
            "findings": self.findings_json(),
        }

    def findings_json(self) -> list[dict[str, Any]]:
        """Plain values for `json.dump`."""
        return [vars(finding) | {"examples": list(finding.examples)} for finding in self.sorted_findings()]

    def table(self, title: str) -> Table:
        """The findings for `rich.print`."""
        return self.findings_table(title, f"{self.images} images")

    def findings_table(self, title: str, caption: str) -> Table:
        """The findings for `rich.print`; an empty table has a row that says so."""
        title = f"{title} ({self.format})" if self.format else title
        table = Table(title=Text(printable(title)), caption=Text(caption), title_justify="left", caption_justify="left")
        for column in ("", "what", "count", "for example"):
            table.add_column(column, justify="right" if column == "count" else "left", overflow="fold")
        for finding in self.sorted_findings():
            style = _COLOURS[finding.severity]
            example = "; ".join(finding.examples[:2])
            table.add_row(Text(finding.severity, style), Text(finding.kind), str(finding.count), Text(example))
        if not self.findings:
            table.add_row(Text("good", "green"), "nothing to remark", "", "")
        return table


def nothing_found() -> Findings:
    """For data that was not read from files."""
    return Findings(file="")


@dataclass
class CheckReport(Findings):
    """All findings of one COCO annotation file, and what remains of it."""

    objects: int = 0
    """without crowd regions"""
    crowds: int = 0
    masks: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        return {
            "file": encodable(self.file),
            "format": self.format,
            "images": self.images,
            "objects": self.objects,
            "crowds": self.crowds,
            "masks": self.masks,
            "class_counts": encodable_keys(self.class_counts),
            "findings": self.findings_json(),
        }

    def table(self, title: str) -> Table:
        """The findings for `rich.print`."""
        outlines = "with outlines" if self.masks else "boxes only"
        caption = (f"{self.images} images, {self.objects} objects ({outlines}), {self.crowds} crowd regions, "
                   f"{len(self.class_counts)} classes")  # fmt: skip
        return self.findings_table(title, caption)


def class_table(counts: Mapping[str, Mapping[str, int]]) -> Table | None:
    """`class_counts` of each split for `rich.print`; None where there are no classes."""
    names = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    if not names:
        return None
    shown = names if len(names) <= LISTED_CLASSES else names[: LISTED_CLASSES - 1]
    rest = f"and {len(names) - len(shown)} more classes, all in --json FILE" if len(shown) < len(names) else None
    table = Table(caption=rest, caption_justify="left")
    table.add_column("class", overflow="fold")
    for split in counts:
        table.add_column(split, justify="right")
    for name in shown:
        numbers = (of_split.get(name) for of_split in counts.values())
        table.add_row(Text(printable(name)), *("-" if number is None else f"{number:,}" for number in numbers))
    return table


def encodable_keys(counts: dict[str, int]) -> dict[str, int]:
    """The same counts under names that a JSON file takes."""
    return {encodable(name): count for name, count in counts.items()}
