"""What several commands need: checked options, the newest file, the seed of a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagaug.runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from dagaug.hdf5.schema import Header

__all__ = ["build_options", "newest_store", "seed_of_split"]


def build_options(build: Any, **values: Any) -> Any:
    """Make an options record; what pydantic finds wrong becomes one line."""
    from pydantic import ValidationError

    try:
        return build(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{name} {first.get('input')}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def newest_store() -> Path:
    files = sorted([*Path("runs").glob("*/*.h5"), *Path().glob("*.h5")], key=lambda path: path.stat().st_mtime)
    if not files:
        raise DataError("no augmented .h5 file found here or under runs/; make one first: dagaug augment DATA")
    return files[-1]


def seed_of_split(header: Header) -> int:
    """The seed that draws the same split again."""
    drawn = header.options.get("split_seed")
    return drawn if isinstance(drawn, int) else header.seed
