"""Images that could not be read when their turn came in an evaluation, though the check before it could."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from piip import processes
from piip.data.image_files import ImageError
from piip.data.readable import not_for_lack_of_memory
from piip.data.report import DataError
from piip.structures import Batch
from piip.tasks.findings import LEAST_USABLE
from piip.tasks.task import Data


@dataclass
class Missing:
    """Those of this process's share."""

    reasons: dict[int, str] = field(default_factory=dict)
    """by position in the data"""

    def batches(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of an `eval_loader`, as long as nobody asks to stop; those that are missing are noted."""
        for batch in processes.until_asked(loader):
            self.reasons.update(batch.missing)
            if batch.indices:
                yield batch

    def note(self, position: int, error: ImageError) -> None:
        """Of an image that is read alone; MemoryError where that is what the error comes from."""
        not_for_lack_of_memory(error)
        self.reasons[position] = str(error)


def gathered(shares: Iterable[Mapping[int, str]]) -> dict[int, str]:
    """What all processes missed, on every process; `shares` are theirs, on the main one."""
    reasons = {position: reason for share in shares for position, reason in share.items()}
    found: dict[int, str] = processes.from_main(dict(sorted(reasons.items())))
    return found


def without(data: Data, reasons: Mapping[int, str]) -> Data:
    """`data` without the images at these positions.

    Raises DataError where most are missing: a figure over the others would pass for that of the data.
    """
    if not reasons:
        return data
    count = len(data.images)
    if count - len(reasons) < LEAST_USABLE * count:
        first = next(iter(reasons.values()))
        raise DataError(f"{len(reasons)} of the {count} images of the evaluation could not be read, though they could "
                        f"before it; is the disk still there? first: {first}")  # fmt: skip
    kept = (image for position, image in enumerate(data.images) if position not in reasons)
    return replace(data, images=type(data.images)(kept))
