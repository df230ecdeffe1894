"""HDF5 files of format version 1 and an export, all written by dagaug 0.1.0 and kept under version control.

``expected.json`` beside the files holds what dagaug 0.1.0 itself read from them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
FILES = TESTS / "hdf5" / "fixtures"
EXPORT = TESTS / "exchange" / "fixtures" / "raw-csv"
"""An export of ``raw.h5`` to CSV."""

EXPECTED: dict[str, dict[str, Any]] = json.loads((FILES / "expected.json").read_text(encoding="utf-8"))
"""By the names of the files without ``.h5``."""


def old_file(name: str) -> Path:
    return FILES / f"{name}.h5"
