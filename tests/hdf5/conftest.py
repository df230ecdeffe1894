"""One file of each encoding, shared by the tests of a module."""

from __future__ import annotations

from pathlib import Path

import pytest
from making_stores import (
    Encoding,
    write,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    encodings: tuple[Encoding, ...] = ("jpeg", "png", "raw")
    return {encoding: write(folder / f"{encoding}.h5", encoding) for encoding in encodings}
