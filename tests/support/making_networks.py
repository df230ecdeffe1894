"""Tiny networks with random weights, saved as timm saves them, and a stand-in for the hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

__all__ = ["cached_on_hub", "cut_off", "saved"]

_COMMIT = "0" * 40


def saved(folder: Path, name: str, *, licence: str | None = None, **arguments: object) -> nn.Module:
    """A network with random weights, written to a folder: config.json and model.safetensors."""
    torch.manual_seed(3)
    model = timm.create_model(name, pretrained=False, **arguments).eval()
    config = {"pretrained_cfg": {"license": licence}} if licence else None
    save_for_hf(model, str(folder), model_config=config, model_args=dict(arguments), safe_serialization=True)
    return model


def cut_off(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """No network; the hub's cache is in this folder."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))


def cached_on_hub(cache: Path, repository: str, folder: Path) -> None:
    """Put a folder into the hub's cache as the files of a repository."""
    base = cache / f"models--{repository.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(_COMMIT)
    shutil.copytree(folder, base / "snapshots" / _COMMIT)
