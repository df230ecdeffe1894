from __future__ import annotations

import pytest
import torch

from dagaug.compute.devices import autocast, computes_in_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize("supported", [True, False])
def test_products_are_computed_in_bf16_where_the_processor_does_that_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    assert computes_in_bf16(CPU) == supported
    with autocast(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if supported else torch.float32)


def test_other_devices_compute_in_32_bits() -> None:
    assert not computes_in_bf16(torch.device("meta"))
