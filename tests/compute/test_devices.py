from __future__ import annotations

import pytest
import torch

from dagaug.compute.devices import (
    autocast,
    batch_size_for,
    computes_in_bf16,
    pick_device,
    pick_devices,
    split_to_fit,
)
from dagaug.runtime.errors import UsageError

CPU = torch.device("cpu")


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)


@pytest.mark.parametrize(
    ("name", "gpus", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("gpu", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_devices_are_picked_by_name(monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, expected: str) -> None:
    with_gpus(monkeypatch, gpus)
    assert pick_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("abacus", "device=abacus: choose auto, cpu, cuda, cuda:N, mps, or another torch device"),
        ("", "device=: choose auto"),
        ("cuda", "device=cuda: not on this machine, which has 0 CUDA GPUs; choose auto or cpu"),
        ("cuda:1", "device=cuda:1: not on this machine"),
        ("meta", "device=meta: not on this machine"),
    ],
)
def test_names_that_are_no_device_here_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    with_gpus(monkeypatch, 0)
    with pytest.raises(UsageError, match=message):
        pick_device(name)


def test_several_devices_are_named_or_all_gpus_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 2)
    gpus = (torch.device("cuda:0"), torch.device("cuda:1"))
    assert pick_devices("cpu, cpu", CPU, every=True) == (CPU, CPU)
    assert pick_devices("cuda:1", CPU, every=True) == gpus[1:]
    assert pick_devices(None, CPU, every=True) == (CPU,)
    assert pick_devices(None, torch.device("cuda"), every=True) == gpus
    assert pick_devices(None, torch.device("cuda"), every=False) == (torch.device("cuda"),)
    with pytest.raises(UsageError, match="devices=cuda:7: not on this machine, which has 2 CUDA GPUs"):
        pick_devices("cpu,cuda:7", CPU, every=True)


@pytest.mark.parametrize("supported", [True, False])
def test_bf16_is_used_only_if_the_processor_supports_it(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    assert computes_in_bf16(CPU) == supported
    with autocast(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if supported else torch.float32)


def test_other_devices_compute_in_32_bits() -> None:
    assert not computes_in_bf16(torch.device("meta"))


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_batches_are_halved_until_they_fit(error: type[Exception]) -> None:
    def compute(start: int, stop: int) -> range:
        if stop - start > 3:
            raise error
        return range(start, stop)

    parts = split_to_fit(compute, 5, 21, CPU)
    assert [item for part in parts for item in part] == list(range(5, 21))
    assert all(1 <= len(part) <= 3 for part in parts)


def test_a_single_item_that_does_not_fit_is_an_error() -> None:
    def compute(start: int, stop: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        split_to_fit(compute, 0, 4, CPU)


def test_the_batch_size_of_a_cpu_needs_no_trial() -> None:
    def never(count: int) -> None:
        raise AssertionError(count)

    assert batch_size_for(CPU, never) == 32


@pytest.mark.parametrize(("free", "expected"), [(2_000, 8), (100_000, 32), (10**9, 512)])
def test_the_batch_size_of_a_gpu_fills_half_of_its_free_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: int
) -> None:
    """A trial of 8 items takes 8,000 bytes: half of 100,000 holds 50 items, and 32 is the power of two below."""
    tried: list[int] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 8_500)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    assert batch_size_for(torch.device("cuda"), tried.append) == expected
    assert tried == [8, 8]
