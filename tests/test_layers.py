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
    ("structures", "files", "lock", "devices", "console", "processes", "reach", "version"),
)
"""from the top down, in the order of the flow: what people hold, how it is trained and judged, what comes out,
the model, what goes in, and what all of them need"""
INFERENCE = (
    ("current_copy",),
    ("inference", "half", "resized"),
    ("choice",),
    ("cpu", "gpu", "kept_positions"),
    ("folding", "kept", "copies", "compiling", "fingerprint"),
)
"""the same inside `inference`: which copy runs, what stands where in it, what runs on which device, folded layers"""


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("piip", cache_dir=None)


def part(module: str, of: str = "piip") -> str:
    """The file or folder in the package `of` that a module is, or lies in; the package's own name for itself."""
    return module.removeprefix(f"{of}.").split(".")[0] if module != of else of.rpartition(".")[2]


def arrows(imports: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    for module in sorted(imports.modules):
        for imported in sorted(imports.find_modules_directly_imported_by(module)):
            yield module, imported


def inside(of: str, imports: grimp.ImportGraph) -> set[str]:
    """The package `of` and all modules in it."""
    return {module for module in imports.modules if f"{module}.".startswith(f"{of}.")}


def arrows_up(
    imports: grimp.ImportGraph, floors: tuple[tuple[str, ...], ...] = FLOORS, of: str = "piip"
) -> set[tuple[str, str]]:
    """Imports, inside the package `of`, of what lies on the same floor or above."""
    floor = {name: number for number, names in enumerate(floors) for name in names}
    modules = inside(of, imports)
    apart = [(a, b) for a, b in arrows(imports) if {a, b} <= modules and part(a, of) != part(b, of)]
    return {(a, b) for a, b in apart if floor[part(a, of)] >= floor[part(b, of)]}


def check_no_circle(imports: grimp.ImportGraph) -> None:
    """CycleError, with the modules in a circle, if there is one."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for a, b in arrows(imports):
        sorter.add(a, b)
    sorter.prepare()


@pytest.mark.parametrize(("floors", "of"), [(FLOORS, "piip"), (INFERENCE, "piip.inference")])
def test_every_part_has_its_floor(imports: grimp.ImportGraph, floors: tuple[tuple[str, ...], ...], of: str) -> None:
    assert {part(module, of) for module in inside(of, imports)} == {name for names in floors for name in names}


def test_no_arrow_runs_up(imports: grimp.ImportGraph) -> None:
    assert arrows_up(imports) == set()
    assert arrows_up(imports, INFERENCE, "piip.inference") == set()


def test_there_is_no_circle(imports: grimp.ImportGraph) -> None:
    check_no_circle(imports)


def test_arrows_up_and_circles_are_seen(imports: grimp.ImportGraph) -> None:
    changed = grimp.build_graph("piip", cache_dir=None)
    changed.add_import(importer="piip.ops.windows", imported="piip.api.piip")
    assert ("piip.ops.windows", "piip.api.piip") in arrows_up(changed)
    changed.add_import(importer="piip.inference.folding.maps", imported="piip.inference.gpu.maps")
    up = ("piip.inference.folding.maps", "piip.inference.gpu.maps")
    assert arrows_up(changed, INFERENCE, "piip.inference") == {up}
    with pytest.raises(CycleError, match=r"piip\.ops\.windows"):
        check_no_circle(changed)
