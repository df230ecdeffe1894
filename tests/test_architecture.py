"""How the modules hang together, read off their source: layers, heavy libraries, public names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dagaug"

LAYERS = (
    (
        "anatomy", "curves", "errors", "evidence", "names", "options", "palette", "plainnet", "precision", "progress",
        "projection", "scenery", "sheets", "tasks", "warps", "wording",
    ),
    (
        "axes", "backbones", "checkpoint", "console", "creatures", "datasets", "flatfile", "foreground", "formats",
        "images", "interrupts", "ledger", "losses", "metrics", "networks", "outputs", "perceptual", "plumage",
        "sampling", "selection", "species",
    ),
    (
        "alike", "classifier", "crew", "encodings", "flock", "patches", "planning", "scatter", "scoretable", "store",
        "translators",
    ),
    ("figures", "frames", "gallery", "judges", "models", "objectives", "passport", "probe", "shards"),
    ("practice",),
    ("evaluate", "export", "finished", "reimport", "runfolder", "squares", "workloads"),
    ("attention", "cloud", "engine", "training", "truth"),
    ("controls", "drawing", "material", "morphing", "report"),
    ("arms", "augment", "results", "translate"),
    ("trainings",),
    ("validation",),
    ("distributed", "score", "tables", "translatefile"),
    ("demo",),
    ("cli",),
    ("__main__",),
)  # fmt: skip
"""From the lowest up; a module imports from the layers below its own and from nowhere else."""

ONLY = {
    "typer": {"cli", "console", "options"},
    "rich": {"cli", "console", "tables"},
    "timm": {"backbones", "classifier"},
    "albumentations": {"classifier"},
    "matplotlib": {"figures", "sheets"},
    "jinja2": {"report"},
    "lightning": {"training"},
    "h5py": {"flatfile"},
    "torchmetrics": {"metrics", "perceptual"},
    "ray": {"distributed"},
    "sklearn": {"projection"},
}
"""Where each heavy library may be imported."""

WITHOUT_TORCH = ("store", "flatfile", "shards", "export", "reimport", "selection", "datasets", "images", "flock")
"""What must work, and quickly, where a result is only read or written; with all they import."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: not the bodies of functions, not what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from at_import(child)


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Full names of what is imported: ``dagaug.errors`` for ``from dagaug.errors import …`` and the like."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "dagaug":
                yield from (f"dagaug.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def of_package(names: Iterator[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("dagaug.")}


def libraries(names: Iterator[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def needed(module: str, *, at_once: bool) -> set[str]:
    """The module and all of the package that it imports, and they import; ``at_once``: on being imported."""
    found, left = set(), [module]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += of_package(imports(at_import(tree(name)) if at_once else ast.walk(tree(name))))
    return found


# ---- layers


def test_every_module_is_in_the_table_once() -> None:
    named = [name for names in LAYERS for name in names]
    assert len(named) == len(set(named))
    assert set(MODULES) - set(named) == set()


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_strictly_downward(module: str) -> None:
    upward = {name for name in of_package(imports(ast.walk(tree(module)))) if LEVEL[name] >= LEVEL[module]}
    assert not upward, f"{module} (layer {LEVEL[module]}) imports {sorted(upward)}, which do not lie below it"


def test_importing_the_package_imports_nothing_of_it() -> None:
    assert of_package(imports(at_import(tree("__init__")))) == set()


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "common", "misc"])
def test_no_module_is_named_after_nothing(name: str) -> None:
    assert name not in MODULES


# ---- heavy libraries


@pytest.mark.parametrize("library", ONLY)
def test_heavy_libraries_are_imported_where_they_belong(library: str) -> None:
    using = {module for module in MODULES if library in libraries(imports(ast.walk(tree(module))))}
    assert using <= ONLY[library]
    assert using, f"nothing imports {library} any more; take it off the table and the dependencies"


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_reading_and_writing_results_needs_no_torch(module: str) -> None:
    reached = {name for name in needed(module, at_once=False) if "torch" in libraries(imports(ast.walk(tree(name))))}
    assert reached == set()


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """``dagaug --help`` and wrong options answer at once."""
    entry = needed("__main__", at_once=True) | needed("cli", at_once=True)
    loaded = {library for module in entry for library in libraries(imports(at_import(tree(module))))}
    assert loaded & {"torch", "timm", "lightning", "cv2", "numpy", "h5py", "albumentations", "matplotlib"} == set()


# ---- public names


def defined(module: str) -> set[str]:
    """Names that the module gives to something of its own."""
    names: set[str] = set()
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                names |= {part.id for part in parts if isinstance(part, ast.Name)}
    return names


def exported(module: str) -> list[str]:
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    pytest.fail(f"{module} has no __all__")


@pytest.mark.parametrize("module", [name for name in MODULES if name != "cli"])
def test_every_public_name_is_in_all(module: str) -> None:
    """But of the command line, whose names are commands and options that ``app`` gathers."""
    public = {name for name in defined(module) if not name.startswith("_")}
    assert public - set(exported(module)) == set()


@pytest.mark.parametrize("module", MODULES)
def test_every_name_in_all_exists_once(module: str) -> None:
    names = exported(module)
    imported = {
        alias.asname or alias.name
        for node in tree(module).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert len(names) == len(set(names))
    assert set(names) - defined(module) - imported == set()


def test_the_package_s_own_names_are_public_where_they_are_at_home() -> None:
    homes = next(
        ast.literal_eval(node.value)
        for node in tree("__init__").body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_HOME"
    )
    assert sorted(homes) == sorted(exported("__init__"))
    assert {name: home for name, home in homes.items() if name not in exported(home)} == {}


def test_none_of_the_package_s_own_names_is_a_module_s() -> None:
    """Importing ``dagaug.x`` makes ``dagaug.x`` that module, whatever else it was to be."""
    assert set(exported("__init__")) & set(MODULES) == set()
