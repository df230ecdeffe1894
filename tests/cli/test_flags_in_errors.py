"""Flags in messages: errors are printed with the flags of the command that failed, and no text names a false flag."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

import dagaug
from dagaug.__main__ import main
from dagaug.cli.app import app
from dagaug.cli.flags_in_errors import command_of, describe, flag
from dagaug.runtime.errors import DataError, OutputExistsError, UsageError

ROOT = Path(dagaug.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
PAGES = [
    path for path in (ROOT.parent / "README.md", *sorted((ROOT.parent / "examples").glob("*.md"))) if path.exists()
]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FLAGS = {
    name
    for command in COMMANDS.values()
    for option in command.params
    for name in (*option.opts, *option.secondary_opts)
} | {"--version", "--help"}
OF_PYTEST = {"--runslow", "--benchmark-only"}

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


# ---- how an option is written


@pytest.mark.parametrize(
    ("command", "option", "value", "written"),
    [
        ("augment", "refs", 0, "--refs 0"),
        ("augment", "overwrite", True, "--overwrite"),
        ("augment", "out", None, "another --out"),
        ("augment", "real", False, "--no-real"),
        ("augment", "allow_mislabelled", False, "--reject-mislabelled"),
        ("augment", "variants", ("morph", "mirror"), "--variants morph,mirror"),
        ("translate", "keep_size", False, "--patch-size"),
        ("train", "without", ("dae", "cst"), "--without dae --without cst"),
        ("score", "ratios", (0.1, 0.5), "--ratio 0.1,0.5"),
        ("score", "mode", "linear-probe", "--mode linear-probe"),
        ("show", "form", "pdf", "--format pdf"),
        ("score", "data", "cub", "DATA cub"),
        ("export", "file", None, "another FILE"),
    ],
)
def test_an_option_of_the_command_is_written_as_its_flag(
    command: str, option: str, value: object, written: str
) -> None:
    assert flag(COMMANDS[command], option, value) == written


@pytest.mark.parametrize(
    ("command", "option", "value", "written"),
    [
        ("train", "overwrite", False, "overwrite=False"),
        ("score", "weight_decay", 0.1, "weight_decay=0.1"),
        (None, "refs", 0, "refs=0"),
    ],
)
def test_an_option_without_a_flag_is_written_as_in_python(
    command: str | None, option: str, value: object, written: str
) -> None:
    assert flag(COMMANDS[command] if command else None, option, value) == written


def test_the_command_is_the_first_argument_that_is_no_option() -> None:
    assert command_of(COMMANDS, ["augment", "train", "--refs", "2"]) is COMMANDS["augment"]
    assert command_of(COMMANDS, ["--version"]) is None
    assert command_of(COMMANDS, ["trian"]) is None


def test_a_message_gets_the_flags_of_the_command_that_failed() -> None:
    error = UsageError("give at least 1", option="refs", value=0)
    assert describe(error, ["augment", "cub", "--refs", "0"]) == "--refs 0: give at least 1"
    error = OutputExistsError("a.h5: exists", remedies={"overwrite": True, "out": None})
    assert describe(error, ["augment", "cub"]) == "a.h5: exists; try --overwrite or another --out"
    assert describe(error, ["show"]) == "a.h5: exists; try overwrite=True or another --out"
    assert describe(DataError("cub: no such folder"), ["train", "cub"]) == "cub: no such folder"


def test_the_command_line_prints_an_error_of_the_library_with_its_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dagaug", "metrics", "RUN", "--parts"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "dagaug: --parts: needs the data folder: dagaug metrics RUN DATA --parts\n")


# ---- what texts say


def strings(path: Path) -> Iterator[str]:
    """String constants of a source file, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # Docstrings of modules, functions and constants are separate expressions.
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_texts_in_the_code_name_only_flags_that_a_command_has(path: Path) -> None:
    named = {name for text in strings(path) for name in FLAG.findall(text)}
    assert named - FLAGS == set()


def flags_of_other_programs(page: str) -> set[str]:
    """Flags in the code blocks of a page, on lines that call another program than dagaug."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return {name for line in lines if not re.search(r"\bdagaug [a-z]", line) for name in FLAG.findall(line)}


def flags_of_examples() -> set[str]:
    """Flags of the scripts in ``examples/``."""
    scripts = (ROOT.parent / "examples").glob("*.py")
    return {name for path in scripts for name in FLAG.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_name_only_flags_that_a_command_has(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    named = set(FLAG.findall(page))
    assert named - FLAGS - OF_PYTEST - flags_of_examples() - flags_of_other_programs(page) == set()


def parameters_of_the_library() -> set[str]:
    """Names of the parameters of all public functions and records."""
    names = set()
    for path in SOURCES:
        module = ".".join(("dagaug", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        if module.endswith("__main__"):
            continue
        found = import_module(module)
        for name in getattr(found, "__all__", ()):
            if callable(public := getattr(found, name)):
                try:
                    names |= set(inspect.signature(public).parameters)
                except ValueError:
                    continue
    return names


def options_of_errors(path: Path) -> Iterator[str]:
    """Names given as ``option="..."`` and as keys of ``remedies={...}`` in a source file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "option" and isinstance(node.value, ast.Constant):
            yield str(node.value.value)
        if isinstance(node, ast.keyword) and node.arg == "remedies" and isinstance(node.value, ast.Dict):
            yield from (str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))


def test_options_that_errors_name_are_parameters_of_a_command_or_of_a_public_function() -> None:
    known = {parameter.name for command in COMMANDS.values() for parameter in command.params}
    known |= parameters_of_the_library() | {""}
    unknown = {path.relative_to(ROOT).as_posix(): set(options_of_errors(path)) - known for path in SOURCES}
    assert {path: names for path, names in unknown.items() if names} == {}
