"""What all tests share: run-time shape checks, the slow mark, quiet libraries."""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytest
import torch
from jaxtyping import install_import_hook

# Every module of the package imported after this line has its jaxtyping shapes checked at run time.
_hook = install_import_hook("dagaug", "beartype.beartype")

torch.set_num_threads(1)  # two threads on two busy cores wait for each other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run trainings of a minute and more")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--runslow"):
            item.add_marker(pytest.mark.skip(reason="needs --runslow"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
