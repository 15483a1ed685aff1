"""No file can run code when it is read: the calls that could let it stand nowhere in the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import piip

PACKAGE = Path(piip.__file__).parent
UNSAFE_MODULES = {"pickle", "_pickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
UNSAFE_YAML = {"load", "load_all", "unsafe_load", "full_load", "Loader", "FullLoader", "UnsafeLoader", "CLoader",
               "safe_load", "safe_load_all"}  # fmt: skip
"""the safe ones too: they have no limit for aliases"""
YAML_READER = "data/text_files.py"


def faults(code: str, file: str) -> Iterator[str]:
    """Calls and imports in `code` by which a file could run code, or use up memory by a few aliases."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom):
            if str(node.module).split(".")[0] in UNSAFE_MODULES:
                yield str(node.module)
            if node.module in ("torch", "numpy", "torch.serialization"):
                yield from (alias.name for alias in node.names if alias.name == "load")
            if node.module == "yaml":
                yield from (alias.name for alias in node.names if alias.name in UNSAFE_YAML)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            if node.value.id == "yaml" and node.attr in UNSAFE_YAML:
                yield called
            if called == "yaml.SafeLoader" and file != YAML_READER:
                yield called
            if node.value.id == "builtins" and node.attr in ("eval", "exec"):
                yield called
        elif isinstance(node, ast.Call):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"):
                yield called
            if called == "torch.load" and not _is(given.get("weights_only"), True):
                yield "torch.load without weights_only=True"
            if called in ("np.load", "numpy.load") and not _is(given.get("allow_pickle"), False):
                yield "np.load without allow_pickle=False"


def _is(value: ast.expr | None, wanted: bool) -> bool:
    return isinstance(value, ast.Constant) and value.value is wanted


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_nothing_is_loaded_that_could_run(file: Path) -> None:
    assert not list(faults(file.read_text(encoding="utf-8"), file.relative_to(PACKAGE).as_posix()))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import load",
        "import joblib.externals",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "from torch import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.safe_load(text)",
        "from yaml import safe_load",
        "yaml.SafeLoader(text)",
        "torch.jit.load(path)",
        "eval(text)",
    ],
)
def test_unsafe_calls_are_seen(code: str) -> None:
    assert list(faults(code, "a.py"))


def test_safe_calls_pass() -> None:
    code = "torch.load(path, weights_only=True)\nnp.load(path, allow_pickle=False)\nmodel.load()\nmodel.eval()"
    assert not list(faults(code, "a.py"))
