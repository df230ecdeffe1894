"""The README names every command, its examples are valid, and the links of all pages work."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

import dagaug
from dagaug.cli.app import app

README = Path(__file__).parent.parent / "README.md"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def readme() -> str:
    if not README.is_file():
        pytest.skip("there is no README.md beside the tests")
    return README.read_text(encoding="utf-8")


def options_of(command: str) -> set[str]:
    return {
        option
        for parameter in COMMANDS[command].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    } | {"-h", "--help"}


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


# ---- commands


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_row_in_the_table_of_commands(readme: str, command: str) -> None:
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    assert any(re.match(rf"\| `dagaug {command}\b", row) for row in rows)


def test_the_table_names_no_command_that_there_is_not(readme: str) -> None:
    named = re.findall(r"`dagaug ([a-z][a-z-]*)", readme)
    assert named
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_is_in_the_readme_or_has_a_help_text(readme: str, command: str) -> None:
    for parameter in COMMANDS[command].params:
        documented = getattr(parameter, "help", None) or any(option in readme for option in parameter.opts)
        assert documented, f"dagaug {command} {parameter.opts}"
    assert COMMANDS[command].help


def test_every_option_that_the_readme_names_is_there(readme: str) -> None:
    known = set.union(*(options_of(command) for command in COMMANDS)) | {
        "--version",
        "--runslow",
        "--benchmark-only",
    }  # the last two are of the tests
    text = re.sub(r"```.*?```", "", readme, flags=re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named
    assert named - known == set()


def test_the_examples_of_commands_use_options_that_these_have(readme: str) -> None:
    seen = 0
    lines = [line for block in code_blocks(readme, "sh") for line in re.split(r"\n|&&|;", block)]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0].rpartition("/")[2] == "dagaug":
            seen += 1
            assert words[1] in COMMANDS, line
            given = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
            assert given <= options_of(words[1]), line
    assert seen >= 4


def test_the_users_three_commands_stand_in_the_readme(readme: str) -> None:
    for command in ("dagaug train ./cub", "dagaug augment ./cub --refs 10", "dagaug score"):
        assert command in readme


# ---- the public API


@pytest.mark.parametrize("name", dagaug.__all__)
def test_every_public_name_imports_and_says_what_it_is(name: str) -> None:
    found = getattr(dagaug, name)
    assert callable(found)
    assert found.__doc__
    assert found.__name__ == name


def test_public_names_are_listed_and_others_are_refused() -> None:
    assert set(dagaug.__all__) <= set(dir(dagaug))
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_the_kind'"):
        dagaug.nothing_of_the_kind  # noqa: B018


def test_no_public_name_is_hidden_by_a_module_of_the_same_name() -> None:
    """An import of the module would replace the name."""
    modules = {path.stem for path in Path(dagaug.__file__).parent.glob("*.py")}
    assert modules.isdisjoint(dagaug.__all__)


def test_the_examples_of_python_are_python_and_import_what_there_is(readme: str) -> None:
    blocks = code_blocks(readme, "python")
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dagaug":
                module = import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


# ---- links

PAGES = [README, *sorted((README.parent / "examples").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(page: str) -> str:
    """The text of a page without its code blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL))


def anchors_of(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", known) is not None for known in found)
        found.add(f"{anchor}-{repeated}" if repeated else anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_anchors_of_pages_exist(page: Path) -> None:
    if not page.is_file():
        pytest.skip("there is no README.md beside the tests")
    broken = []
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


def test_pages_have_links_to_check() -> None:
    assert any("#" in target or target.endswith(".md") for page in PAGES if page.is_file()
               for target in LINK.findall(page.read_text(encoding="utf-8")))  # fmt: skip
