"""The house keeps its floors: a part of the package uses the parts below it and nothing beside or above it.

All imports count, those inside functions and for type checkers too.
"""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

FLOORS = (
    ("piip", "__main__"),
    ("cli",),
    ("demo", "serve"),
    ("api",),
    ("training",),
    ("explain", "designs"),
    ("tasks",),
    ("export",),
    ("benchmark",),
    ("profile",),
    ("evaluation", "video"),
    ("prediction",),
    ("tiles",),
    ("pictures",),
    ("inference",),
    ("lean",),
    ("weights",),
    ("zoo",),
    ("model", "encoder"),
    ("heads",),
    ("backbone",),
    ("data",),
    ("ops",),
    ("config",),
    ("structures", "files", "devices", "console", "processes", "reach", "version"),
)
"""from the top down, in the order of the flow: what people hold, how it is trained and judged, what comes out,
the model, what goes in, and what all of them need"""


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("piip", cache_dir=None)


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def arrows(imports: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    for module in sorted(imports.modules):
        for imported in sorted(imports.find_modules_directly_imported_by(module)):
            yield module, imported


def arrows_up(imports: grimp.ImportGraph) -> set[tuple[str, str]]:
    """Imports of what lies on the same floor or above."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    apart = [(a, b) for a, b in arrows(imports) if part(a) != part(b)]
    return {(a, b) for a, b in apart if floor[part(a)] >= floor[part(b)]}


def check_no_circle(imports: grimp.ImportGraph) -> None:
    """CycleError, with the modules in a circle, if there is one."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for a, b in arrows(imports):
        sorter.add(a, b)
    sorter.prepare()


def test_every_part_has_its_floor(imports: grimp.ImportGraph) -> None:
    assert {part(module) for module in imports.modules} == {name for names in FLOORS for name in names}


def test_no_arrow_runs_up(imports: grimp.ImportGraph) -> None:
    assert arrows_up(imports) == set()


def test_there_is_no_circle(imports: grimp.ImportGraph) -> None:
    check_no_circle(imports)


def test_arrows_up_and_circles_are_seen(imports: grimp.ImportGraph) -> None:
    changed = grimp.build_graph("piip", cache_dir=None)
    changed.add_import(importer="piip.ops.windows", imported="piip.api.piip")
    assert ("piip.ops.windows", "piip.api.piip") in arrows_up(changed)
    with pytest.raises(CycleError, match=r"piip\.ops\.windows"):
        check_no_circle(changed)
