"""Command-line flags of options that errors name by their Python names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dagaug.runtime.errors import DagaugError, as_keyword

__all__ = ["command_of", "describe", "flag"]

_PARAMETERS = {"others": "arm", "ratios": "ratio", "dataset": "data", "store": "file", "run": "checkpoint"}
"""Command-line parameters for library options of another name."""


def flag(command: Any, option: str, value: object) -> str:
    """Write an option as a flag of a command: ``--refs 0``, ``--overwrite``, ``another --out``.

    Args:
        command: Click command; None if no command ran.
        option: Python name of the option.
        value: its value; None for "another value".

    Returns:
        The flag, or the Python form (``refs=0``) if the command has no such parameter or no flag for this value.
    """
    parameters = {parameter.name: parameter for parameter in command.params} if command is not None else {}
    parameter = parameters.get(option) or parameters.get(_PARAMETERS.get(option, ""))
    if parameter is None:
        return as_keyword(option, value)
    name = _name(parameter)
    if value is None:
        return f"another {name}"
    if isinstance(value, bool):
        names = parameter.opts if value else parameter.secondary_opts
        return str(names[0]) if names else as_keyword(option, value)
    if isinstance(value, list | tuple):
        parts = list(map(str, value))
        return " ".join(f"{name} {part}" for part in parts) if parameter.multiple else f"{name} {','.join(parts)}"
    return f"{name} {value}"


def _name(parameter: Any) -> str:
    """First long flag of an option; metavar of an argument."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return str(next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0]))


def command_of(commands: Mapping[str, Any], arguments: Sequence[str]) -> Any:
    """The command that these arguments call, None without one. The program itself has no options with values."""
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    return commands.get(first) if first is not None else None


def describe(error: DagaugError, arguments: Sequence[str]) -> str:
    """An error's message with the flags of the command that ``arguments`` call."""
    if not error.option and not error.remedies:
        return error.message
    import typer.main

    from dagaug.cli.app import app

    group: Any = typer.main.get_command(app)
    write: Callable[[str, object], str] = partial(flag, command_of(group.commands, arguments))
    return error.describe(write)
