"""What the documentation says is there: commands, options, settings, models, Python names, files, links."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from tests.docs.words import (
    MADE,
    PAGES,
    ROOT,
    all_said,
    anchors,
    command_line,
    commands,
    links,
    options_of,
    said,
    verbs,
)

import piip
from piip import config, zoo
from piip.api import PIIP
from piip.prediction.options import FurtherOptions
from piip.training.settings import Settings
from piip.zoo.encoders import list_encoders

OTHERS = {"--array", "--cfg-options", "--max-restarts", "--nproc-per-node", "--logdir", "--resume"}
"""options of Slurm, mmdetection, torchrun and TensorBoard"""
OTHER_FILES = {"demo/image_demo.py"}
HEADS = (config.MaskRCNN, config.DINO, config.UperNet, config.Classifier)


def test_commands_are_understood() -> None:
    """Whole lines in blocks are parsed; in sentences, verbs and options are there."""
    wrong, seen = [], 0
    for piece in all_said():
        for words in commands(piece):
            seen += 1
            wrong += [f"{piece.place}: piip {' '.join(words)}: {why}" for why in misunderstood(words, piece.language)]
    assert wrong == []
    assert seen > 200


def misunderstood(words: list[str], language: str) -> Iterator[str]:
    command: Any = command_line()
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands:
            yield f"no command {words[0]}"
            return
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands") or "--help" in words:
        return
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    if unknown := given - options_of(command):
        yield f"no option {', '.join(unknown)}"
    elif language != "inline":
        try:
            command.make_context(command.name, list(words))
        except Exception as error:  # whatever the parser says
            yield str(error)


def test_options_in_sentences_are_some_verbs_or_scripts() -> None:
    known = OTHERS.union(*map(options_of, verbs()))
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").rglob("*.py"))
    wrong = [
        f"{piece.place}: {option}"
        for piece in all_said()
        if piece.language == "inline"
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", piece.text)
        if option not in known and f'"{option}"' not in scripts
    ]
    assert wrong == []


def test_every_option_says_what_it_is() -> None:
    silent = [f"{verb.name} {one.opts[0]}" for verb in verbs() for one in verb.params if not one.help]
    assert silent == []


def test_scripts_have_the_options_that_are_shown() -> None:
    wrong = []
    for piece in all_said():
        for match in re.finditer(r"(benchmarks/[\w/]+\.py)([^#\n]*)", piece.text.replace("\\\n", " ")):
            path = ROOT / match[1]
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            options = re.findall(r"(?<![\w-])--[a-z][\w-]*", match[2])
            if not text or not all(f'"{option}"' in text for option in options):
                wrong.append(f"{piece.place}: {match[0]}")
    assert wrong == []


def test_settings_are_there() -> None:
    augmentation = {name for one in augmentations() for name in one.model_fields}
    parts = {"augmentation": augmentation, "head": {name for head in HEADS for name in head.model_fields}}
    wrong, seen = [], 0
    for piece in all_said():
        for name in re.findall(r"--set '?([a-z][a-z_.]*)=", piece.text):
            first, _, second = name.partition(".")
            seen += 1
            if first not in Settings.model_fields.keys() | parts.keys() or (second and second not in parts[first]):
                wrong.append(f"{piece.place}: {name}")
    assert wrong == []
    assert seen > 40


def augmentations() -> Iterator[Any]:
    """The models of each task's random changes."""
    for task in ("detection", "segmentation", "classification"):
        module = import_module(f"piip.data.{task}.augmentation")
        yield from (one for one in vars(module).values() if hasattr(one, "model_fields"))


def test_models_are_there() -> None:
    known = set(zoo.MODELS) | set(list_encoders())
    wrong = [
        f"{piece.place}: {name}"
        for piece in all_said()
        for name in re.findall(r"(?<![\w/])piip_[a-z0-9_]+\b(?!\.)", piece.text)
        if name not in known
    ]
    assert wrong == []


def test_python_names_are_there() -> None:
    """Of blocks what they import, everywhere what begins with "piip."."""
    wrong, seen = [], 0
    for piece in all_said():
        names = re.findall(r'(?<![\w/."-])piip(?:\.[A-Za-z_]\w*)+(?!\w*/)', piece.text)
        names = [name for name in names if not name.endswith(".json")]
        if piece.language == "python":
            for node in ast.walk(ast.parse(piece.text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "piip":
                    names += [f"{node.module}.{one.name}" for one in node.names]
        seen += len(names)
        wrong += [f"{piece.place}: {name}" for name in names if not is_there(name)]
    assert wrong == []
    assert seen > 80


def is_there(name: str) -> bool:
    held: Any = piip
    path = "piip"
    for part in name.split(".")[1:]:
        path += f".{part}"
        try:
            held = getattr(held, part) if hasattr(held, part) else import_module(path)
        except ImportError:
            return False
    return True


def test_calls_have_keywords_that_are_taken() -> None:
    taken = {name: keywords_of(getattr(PIIP, name)) for name in dir(PIIP) if not name.startswith("_")
             and callable(getattr(PIIP, name))}  # fmt: skip
    wrong, seen = [], 0
    for piece in all_said():
        for node in ast.walk(ast.parse(piece.text)) if piece.language == "python" else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.keywords:
                name = node.func.attr
                of_piip = isinstance(node.func.value, ast.Name) and node.func.value.id == "piip"
                allowed = keywords_of(getattr(piip, name)) if of_piip else taken.get(name)
                given = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                if allowed is not None:
                    seen += 1
                    wrong += [f"{piece.place}: {name}({one}=)" for one in given - allowed]
    assert wrong == []
    assert seen > 20


def keywords_of(call: Any) -> set[str]:
    names = set()
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            names.add(name)
        elif name in ("settings", "changes"):
            names |= set(Settings.model_fields)
        else:
            names |= set(FurtherOptions.__annotations__) | {"conf", "save", "batch_size", "precision"}
    return names


def test_links_lead_somewhere() -> None:
    wrong = []
    for page in PAGES:
        for link in links(page):
            place, _, anchor = link.partition("#")
            target = ((ROOT / page).parent / place).resolve() if place else ROOT / page
            name = str(target.relative_to(ROOT))
            if not target.exists() and name not in MADE:
                wrong.append(f"{page}: {link}: no such file")
            elif anchor and anchor not in anchors(name):
                wrong.append(f"{page}: {link}: no such heading, there are {sorted(anchors(name))}")
    assert wrong == []


def test_the_site_shows_every_page() -> None:
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    shown = {f"docs/{name}" for name in re.findall(r'= "([\w/]+\.md)"', text)}
    assert shown - MADE == {page for page in PAGES if page.startswith("docs/")}
    assert MADE - shown == set()


def test_files_are_there() -> None:
    """Files of the repository, by their path from its root, from src/piip or from the folder a page speaks of."""
    files = {str(path.relative_to(ROOT)) for where in ("src", "tests", "benchmarks", "docs") for path in
             (ROOT / where).rglob("*") if path.is_file()}  # fmt: skip
    folders = {str(parent) for name in files for parent in (ROOT / name).relative_to(ROOT).parents}
    wrong = []
    for piece in all_said():
        name = piece.text.rstrip("/")
        path = r"[\w/]+\.py|(?:src|tests|docs|benchmarks)/[\w/.]+"
        if (
            piece.language != "inline"
            or re.fullmatch(path, name) is None
            or name in files | folders | MADE | OTHER_FILES
        ):
            continue
        if not any(file.endswith(f"/{name}") for file in files):
            wrong.append(f"{piece.place}: {name}")
    for file in (ROOT / "src").rglob("*.py"):
        named = re.findall(r"docs/\w+\.md", file.read_text(encoding="utf-8"))
        wrong += [f"{file.name}: {name}" for name in named if name not in files]
    assert wrong == []


def test_extras_and_targets_are_there() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^(\w+) = \[", project.split("[project.optional-dependencies]")[1].split("\n[")[0], re.M))
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    wrong = []
    for piece in all_said():
        named = re.findall(r'pip install (?:-e )?"(?:piip|\.)\[(\w+)\]"', piece.text)
        wrong += [f"{piece.place}: {extra}" for extra in named if extra not in extras]
        made = re.findall(r"^make ([a-z-]+)", piece.text, re.M)
        wrong += [f"{piece.place}: make {target}" for target in made if target not in targets]
    assert wrong == []
    assert {"train", "all"} <= extras


def test_the_reference_has_what_the_package_gives() -> None:
    shown = re.findall(r"^::: (\S+)", (ROOT / "docs/reference/python.md").read_text(encoding="utf-8"), re.M)
    assert [name for name in shown if not is_there(name)] == []
    public = {f"piip.{name}" for name in piip.__all__ if not name.startswith("__")}
    assert public - set(shown) == {"piip.PIIPModel"}, "which is there as piip.model.PIIPModel"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["predikt"], "no command predikt"),
        (["data", "sort"], "no command sort"),
        (["val", "--weights", "RUN", "--data", "DATA", "--treshold", "1"], "no option --treshold"),
    ],
)
def test_a_wrong_command_is_seen(words: list[str], problem: str) -> None:
    assert list(misunderstood(words, "")) == [problem]


def test_a_page_is_read_whole() -> None:
    pieces = list(said("docs/start.md"))
    assert {piece.language for piece in pieces} == {"", "inline", "python"}
    assert any(list(commands(piece)) for piece in pieces)
