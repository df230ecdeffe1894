"""Structure of the package, read from its source: imports, sizes, heavy libraries, public names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dagaug"

PACKAGES = {
    "runtime": "",
    "compute": "runtime",
    "data": "runtime",
    "birds": "data runtime",
    "hdf5": "runtime",
    "exchange": "data hdf5 runtime",
    "hub": "exchange hdf5 runtime",
    "model": "classifiers compute data hub runtime",
    "classifiers": "compute runtime",
    "training": "classifiers compute data hub model runtime",
    "augment": "classifiers compute data hdf5 model runtime",
    "translate": "compute data hdf5 model runtime",
    "score": "augment classifiers compute data hdf5 hub model runtime training",
    "metrics": "augment birds classifiers compute data hdf5 model runtime",
    "report": "augment classifiers compute data hdf5 metrics model runtime score",
    "cli": "augment birds classifiers compute data exchange hdf5 hub metrics model report runtime score training "
    "translate",
}
"""Each package and the packages that it may import."""

TOP = {"__init__", "__main__", "demo"}
"""Modules outside the packages; they may import everything, nothing but the command line imports them."""

ONLY = {
    "typer": {"cli"},
    "rich": {"cli"},
    "timm": {"classifiers"},
    "albumentations": {"classifiers"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "lightning_fabric": {"training"},
    "h5py": {"hdf5"},
    "huggingface_hub": {"classifiers", "hub"},
    "torchmetrics": {"metrics"},
    "ray": {"augment"},
    "sklearn": {"report"},
    "pyarrow": {"data"},
}
"""The packages in which each heavy library may be imported."""

WITHOUT_TORCH = {"runtime", "data", "birds", "hdf5", "exchange", "hub"}
WITH_TORCH = {"hdf5.torch_dataset"}
"""What must work, and quickly, where a result is only read or written; with all they import, but for these modules."""

SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = sorted(name for name in SOURCES if name != "__init__")


def package_of(module: str) -> str:
    return module.split(".")[0]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


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
    """Modules of this package among full names: ``model.checkpoint`` for ``dagaug.model.checkpoint.load`` too."""
    found = set()
    for name in names:
        parts = name.split(".")[1:] if name.startswith("dagaug.") else []
        while parts and ".".join(parts) not in SOURCES:
            parts.pop()
        if parts:
            found.add(".".join(parts))
    return found


def imported_modules(module: str, *, at_once: bool = False) -> set[str]:
    return of_package(imports(at_import(tree(module)) if at_once else ast.walk(tree(module)))) - {module}


def libraries(names: Iterator[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def needed(module: str, *, at_once: bool) -> set[str]:
    """The module and all of the package that it imports, and they import; ``at_once``: on being imported."""
    found, left = set(), [module]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += imported_modules(name, at_once=at_once)
            if at_once and "." in name:
                left.append(package_of(name))
    return found


# ---- packages


def test_every_package_is_in_the_table() -> None:
    assert {package_of(module) for module in MODULES} - TOP == set(PACKAGES)


@pytest.mark.parametrize("module", [module for module in MODULES if package_of(module) in PACKAGES])
def test_packages_import_what_the_table_allows(module: str) -> None:
    allowed = {*PACKAGES[package_of(module)].split(), package_of(module)}
    if package_of(module) == "cli":
        allowed.add("demo")
    assert {package_of(name) for name in imported_modules(module)} <= allowed


def test_the_table_has_no_circle() -> None:
    done: set[str] = set()
    while ready := {name for name, allowed in PACKAGES.items() if name not in done and set(allowed.split()) <= done}:
        done |= ready
    assert done == set(PACKAGES)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_circle(module: str) -> None:
    """What a module imports, even inside functions, never imports it; a package's ``__init__`` re-exports."""
    below = {name for name in imported_modules(module) if name not in PACKAGES}
    reached = set().union(*(needed(name, at_once=False) - set(PACKAGES) for name in below)) if below else set()
    assert module not in reached


def test_importing_the_package_imports_nothing_of_it() -> None:
    assert imported_modules("__init__", at_once=True) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is_for_in_its_first_line(package: str) -> None:
    docstring = ast.get_docstring(tree(package))
    assert docstring
    assert docstring.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "common", "misc"])
def test_no_module_is_named_after_nothing(name: str) -> None:
    assert name not in {module.split(".")[-1] for module in MODULES}


# ---- sizes


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_are_short(module: str) -> None:
    """At most 450 lines a module and 80 a function, but for the commands, whose signatures are their help."""
    assert len(SOURCES[module].read_text(encoding="utf-8").splitlines()) <= 450
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef)]
    if package_of(module) == "cli":
        lines = {f.name: (f.end_lineno or 0) - f.body[0].lineno + 1 for f in functions}
    else:
        lines = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}
    assert {name: count for name, count in lines.items() if count > 80} == {}


# ---- heavy libraries


@pytest.mark.parametrize("library", ONLY)
def test_heavy_libraries_are_imported_where_they_belong(library: str) -> None:
    using = {package_of(module) for module in MODULES if library in libraries(imports(ast.walk(tree(module))))}
    assert using <= ONLY[library]
    assert using, f"nothing imports {library} any more; take it off the table and the dependencies"


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) in WITHOUT_TORCH and m not in WITH_TORCH])
def test_reading_and_writing_results_needs_no_torch(module: str) -> None:
    reached = {name for name in needed(module, at_once=False) if "torch" in libraries(imports(ast.walk(tree(name))))}
    assert reached == set()


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """``dagaug --help`` and wrong options answer at once."""
    entry = needed("__main__", at_once=True) | needed("cli.app", at_once=True)
    loaded = {library for module in entry for library in libraries(imports(at_import(tree(module))))}
    heavy = {"torch", "timm", "lightning_fabric", "cv2", "numpy", "h5py", "albumentations", "matplotlib"}
    heavy |= {"huggingface_hub"}
    assert loaded & heavy == set()


# ---- public names


def defined(module: str) -> set[str]:
    """Names that the module defines."""
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


@pytest.mark.parametrize("module", [name for name in MODULES if name not in PACKAGES])
def test_every_public_name_is_in_all(module: str) -> None:
    public = {name for name in defined(module) if not name.startswith("_")}
    assert public - set(exported(module)) == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name not in PACKAGES])
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
    """Importing ``dagaug.x`` binds ``dagaug.x`` to that module, so no public name may be equal to a module's."""
    assert set(exported("__init__")) & set(MODULES) == set()
