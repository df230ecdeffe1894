"""Options from a TOML file: ``--config FILE`` of every command.

Options at the top of the file hold for each command that has them, options in a table ``[train]``, ``[augment]``, ...
for this command alone. Options on the command line override the file. Paths are relative to the current folder, as on
the command line::

    seed = 1

    [train]
    steps = 2000

    [augment]
    refs = 20
    variants = ["morph", "mirror"]
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, no_type_check

import typer
from typer.core import TyperCommand

from dagaug.runtime.errors import UsageError

__all__ = ["ConfigurableCommand", "options_of_file"]

_ALWAYS_TYPED = ("config", "help")


def options_of_file(path: Path, command: str, commands: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one command in a TOML file.

    Args:
        path: the file.
        command: name of the command.
        commands: Click commands by name.

    Returns:
        Values by parameter name, in the form of the command line: lists are joined with commas unless the option is
        repeatable.

    Raises:
        UsageError: the file cannot be read, is not TOML, or has a key or a value that no command takes.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", option="config", value=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not a TOML file ({error})", option="config", value=path) from error
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    shared = {key: value for key, value in content.items() if key not in tables}
    _check_known(path, tables, commands, "command")
    names = {name: _parameters(one) for name, one in commands.items()}
    everywhere = {key for parameters in names.values() for key in parameters}
    _check_known(path, map(_python_name, shared), everywhere, "option of any command")
    for table, values in tables.items():
        _check_known(path, map(_python_name, values), names[table], f"option of dagaug {table}")
    own = names[command]
    wanted = {_python_name(key): value for key, value in shared.items() if _python_name(key) in own}
    wanted |= {_python_name(key): value for key, value in tables.get(command, {}).items()}
    return {key: _as_typed(path, key, value, own[key]) for key, value in wanted.items()}


def _python_name(key: str) -> str:
    return key.replace("-", "_")


def _parameters(command: Any) -> dict[str, Any]:
    """Parameters of a command that a file may set, by the name of their long flag (arguments: by their name)."""
    found = {}
    for parameter in command.params:
        flags = [flag[2:] for flag in parameter.opts if flag.startswith("--")]
        name = _python_name(flags[0] if flags else parameter.name)
        if name not in _ALWAYS_TYPED:
            found[name] = parameter
    return found


def _check_known(path: Path, given: Iterable[str], known: Iterable[str], what: str) -> None:
    names = sorted(known)
    for key in given:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=2)
            hint = f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(names)}"
            raise UsageError(f"{key} is no {what}{hint}", option="config", value=path)


def _as_typed(path: Path, key: str, value: Any, parameter: Any) -> Any:
    """A value of the file as Click expects it from a command line."""
    is_switch = bool(getattr(parameter, "is_flag", False))
    if is_switch != isinstance(value, bool):
        expected = "true or false" if is_switch else "a number, a text or a list"
        raise UsageError(f"{key} must be {expected}, not {value!r}", option="config", value=path)
    if is_switch:
        return value
    if isinstance(value, list):
        parts = [str(part) for part in value]
        return parts if parameter.multiple else ",".join(parts)
    if not isinstance(value, int | float | str):
        raise UsageError(f"{key} must be a number, a text or a list", option="config", value=path)
    return [str(value)] if parameter.multiple else str(value)


@no_type_check  # Typer recognises the context by this annotation, but passes one of its base class
def _read(context: typer.Context, path: Path | None) -> None:
    """Take the file's options as defaults of the command that is being parsed."""
    if path is None:
        return
    parent = context.parent
    commands = parent.command.commands if parent is not None else {}
    found = options_of_file(path, str(context.info_name), commands)
    by_flag = _parameters(context.command)
    context.default_map = {by_flag[key].name: value for key, value in found.items()}


def _only_config(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML file with options, for all commands or in tables by command; the command line overrides it.",
            is_eager=True,
            expose_value=False,
            callback=_read,
        ),
    ] = None,
) -> None:
    """Holds the option that every command gets."""


class ConfigurableCommand(TyperCommand):
    """A command with the option ``--config``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        holder = typer.Typer(add_completion=False)
        holder.command()(_only_config)
        option = next(one for one in typer.main.get_command(holder).params if one.name == "config")  # type: ignore[attr-defined]
        self.params.append(option)
