"""Explain: what each part of a pyramid does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from piip import tasks
from piip.api.held import Held
from piip.console import Terminal, say
from piip.data.decode import decode_image
from piip.data.image_files import ImageError
from piip.files import refuse_taken
from piip.prediction.files import REMEDY
from piip.prediction.options import Options

if TYPE_CHECKING:
    from piip.explain.ablation import Row
    from piip.explain.parts import Kind


class Explaining(Held):
    """A model that is taken apart."""

    def explain(
        self,
        data: str | Path,
        split: str = "val",
        parts: Sequence[Kind] = ("branches", "directions"),
        images: int | None = 200,
        batch_size: int = 1,
        output: str | Path | None = None,
        pictures: int = 4,
        tiles: int | None = None,
        overlap: float | None = None,
    ) -> Iterator[Row]:
        """Metrics of the whole model on a split of `data`, then without each of its parts, as they are measured.

        Args:
            data: a data set, see `piip data check`.
            split: of it.
            parts: kinds of them: "branches" (a branch with all it gives), "directions" (what goes from one branch to a
                neighbour), "groups" (all exchanges after a group of blocks).
            images: at most so many, the same ones each time; None: all.
            batch_size: images at a time.
            output: a folder for `explain.json`, written anew after each part, and `pictures`.
            pictures: images of the split of which to draw each branch's share of the merged map and where the last
                exchanges look, with `output`.
            tiles: side, in pixels of the image, of tiles in which images are evaluated, and `overlap` as in `predict`;
                0: whole images; None: as the training of these weights evaluated them.

        Raises:
            ValueError: a model of a single branch, or another kind of part; or `output` has such files already.
            DataError: no data set, one that the model is not for, or most of whose images cannot be read. Without a
                few of them it goes on: `row.unreadable` names those that the row's metrics are without.
        """
        from piip.explain.ablation import ablation
        from piip.explain.report import write_pictures, write_rows

        if images is not None and images < 1:
            raise ValueError(f"{images} images: use 1 or more, or None for all")
        if output is not None:
            refuse_taken([Path(output) / "explain.json", Path(output) / "pictures"], REMEDY)
        side = tiles if tiles is not None else None if self._facts is None else self._facts.tiles
        options = Options.of(conf=0.0, tiles=side or None, overlap=overlap)
        tasks.require_pairing(self.config, data)
        opened = tasks.of(self.config).open_split(data, split)
        if options.tiles is not None:
            say(Terminal(stderr=True), f"images are evaluated in tiles of {options.tiles} pixels")
        if (line := tasks.in_a_line({split: opened})) is not None:
            say(Terminal(stderr=True), line)
        rows: list[Row] = []
        told: set[str] = set()
        for row in ablation(self.model, opened, parts, images, batch_size, options=options):
            if new := [problem for problem in row.unreadable if problem not in told]:
                say(Terminal(stderr=True), f"{split}: {tasks.note_unreadable(opened, new)}")
                told.update(new)
            rows.append(row)
            if output is not None:
                write_rows(rows, Path(output))
            yield row
        if output is not None and pictures > 0:
            paths = tasks.of(self.config).image_paths(opened, pictures)
            write_pictures(self.model, _readable(paths), Path(output) / "pictures")


def _readable(paths: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    for path in paths:
        try:
            yield path, decode_image(path)
        except ImageError as error:
            say(Terminal(stderr=True), f"no picture of {error}")
