"""A stand-in for the hub that all tests of a module share; each test begins with an empty one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, connect, running_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub to which huggingface_hub talks in this test, with a token and an empty cache."""
    with running_hub() as server:
        connect(monkeypatch, server, tmp_path / "cache")
        yield server
