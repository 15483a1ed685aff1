"""The category records of a COCO file: ids and names, checked and in label order."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from piip.data.report import CheckReport, DataError
from piip.data.values import Ids, as_name


def read_categories(
    records: list[Any], ids: Ids, used: Collection[int | None], path: Path, report: CheckReport
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Ids in ascending order, so that labels don't depend on the order in the file, and their names.

    `used` are the ids that annotations have.
    """
    names: dict[int, str] = {}
    for position, record in enumerate(_without_groups(records, ids, used, report)):
        category_id = ids(record.get("id")) if isinstance(record, dict) else None
        if category_id is None:
            report.add("left out", "category without an integer id", f"record {position}: {record!r:.80}")
            continue
        name = as_name(record.get("name"))
        if name is None:
            report.add("repaired", "category without a name (its id is used)", f"category {category_id}")
            name = str(category_id)
        if category_id not in names:
            names[category_id] = name
        elif names[category_id] == name:
            report.add("repaired", "category repeated", f"category {category_id} ({name})")
        else:
            pair = f"category {category_id}: {names[category_id]} (used) and {name}"
            report.add("error", "category id with two names", pair)
    if not names:
        raise DataError(f'{path}: no usable categories; "categories" must list {{"id": 1, "name": "..."}}')
    for name in sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
        same = [i for i, other in names.items() if other == name]
        report.add("note", "category name used for several ids (kept apart)", f"{name}: {same}")
    ordered = sorted(names)
    return tuple(ordered), tuple(names[category_id] for category_id in ordered)


def _without_groups(records: list[Any], ids: Ids, used: Collection[int | None], report: CheckReport) -> list[Any]:
    """The records without one that only groups others and has the name of one of them.

    Roboflow writes one in front that is the supercategory of all and has no objects. With another name it does no
    harm and stays, as models were trained with it; with the same name, classes could no longer be told apart.
    """
    known = [record for record in records if isinstance(record, dict)]
    kept = []
    for record in records:
        group = as_name(record.get("name")) if isinstance(record, dict) else None
        others = [other for other in known if other is not record and as_name(other.get("name")) == group]
        if group and ids(record.get("id")) not in used and any(o.get("supercategory") == group for o in others):
            report.add("note", "category that only groups others, one of the same name (left out)", group)
        else:
            kept.append(record)
    return kept
