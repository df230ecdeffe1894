"""Values of the options of ``dagaug score`` that are lists: arms, numbers, numbers of images."""

from collections.abc import Sequence
from pathlib import Path

from dagaug.hub.names import is_hub_name
from dagaug.runtime.errors import StoreError, UsageError

__all__ = ["choose_arms", "parse_named_paths", "parse_numbers", "parse_shots", "parse_whole_numbers"]


def parse_shots(text: str | None) -> list[tuple[int, Path | None]]:
    """Numbers of images a class, each with the HDF5 file that is given for it; empty without the option."""
    found: list[tuple[int, Path | None]] = []
    for part in text.split(",") if text is not None else ():
        number, equals, path = part.strip().partition("=")
        if not number.isdecimal() or (equals and not path):
            raise UsageError("write numbers separated by commas, or N=FILE", option="shots", value=text)
        if path and not is_hub_name(path) and not Path(path).exists():
            raise StoreError(f"{path}: no such file")
        found.append((int(number), Path(path) if path else None))
    return found


def choose_arms(text: str | None, *, quick: bool, controls: bool) -> tuple[str, ...]:
    """Names of the arms that ``--arms`` asks for, or of the default ones."""
    from dagaug.score.arms import DEFAULT_ARMS, QUICK, arm_names

    named = arm_names() if text == "all" else tuple(name.strip() for name in text.split(",")) if text else ()
    chosen = named or (QUICK if quick else DEFAULT_ARMS)
    without_controls = arm_names(controls=False)
    return chosen if controls else tuple(name for name in chosen if name in without_controls)


def parse_named_paths(texts: Sequence[str] | None) -> tuple[tuple[str, Path], ...]:
    """Names and paths of additional arms, each written NAME=PATH."""
    found = []
    for text in texts or ():
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError("write NAME=PATH", option="arm", value=text)
        if not is_hub_name(path) and not Path(path).exists():
            raise UsageError("no such HDF5 file or folder", option="arm", value=text)
        found.append((name, Path(path)))
    return tuple(found)


def parse_numbers(option: str, text: str | None) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError("write numbers separated by commas", option=option, value=text) from error


def parse_whole_numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError("write whole numbers separated by commas", option=option, value=text) from error
