from __future__ import annotations

import os
from dataclasses import FrozenInstanceError

import pytest

from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import SILENT


def test_default_is_any_device_and_skips_unreadable_images_in_silence() -> None:
    assert Execution() == Execution(device="auto", workers=None, strict=False, progress=SILENT)


@pytest.mark.parametrize(("processors", "threads"), [(None, 1), (2, 2), (8, 8), (64, 8)])
def test_default_is_one_thread_per_processor_and_at_most_eight(
    monkeypatch: pytest.MonkeyPatch, processors: int | None, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert Execution().threads == threads
    assert Execution(workers=20).threads == 20


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_an_error(workers: int) -> None:
    with pytest.raises(UsageError, match=f"workers={workers}: give at least 1"):
        Execution(workers=workers)


def test_record_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Execution().strict = True  # type: ignore[misc]
