"""Checkpoint files: tensors as safetensors, everything else as JSON in the file's header. Nothing is unpickled.

One checkpoint is one file, so it is replaced in one step and never half written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dagaug.model.run_folders import FROZEN, MODEL_FILE, STATE_FILE
from dagaug.runtime.errors import CheckpointError
from dagaug.runtime.files import atomic_replace

__all__ = [
    "FROZEN",
    "MODEL_FILE",
    "STATE_FILE",
    "add_prefix",
    "find_by_hash",
    "load",
    "load_module",
    "optimizer_tensors",
    "restore_optimizer",
    "save",
    "sha256",
    "strip_prefix",
]

_HEADER = "dagaug"


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: the file.
        tensors: by name; they may share memory.
        header: what JSON can hold.

    Raises:
        CheckpointError: the file cannot be written (no space, no permission).
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with atomic_replace(path) as temporary:
            save_file(plain, temporary, metadata={_HEADER: json.dumps(header, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error}); free some space", remedies={"out": None}
        ) from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and header.

    Raises:
        CheckpointError: the file is missing, corrupt, or not a checkpoint of dagaug.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train one first: dagaug train DATA")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            if not isinstance(header, dict):
                raise ValueError("the header is not an object")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (not a dict)
    except KeyError as error:
        raise CheckpointError(f"{path}: not a checkpoint of dagaug (no header of dagaug)") from error
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:  # RecursionError: nested JSON
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); restore it or train again") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_by_hash(places: Sequence[Path], wanted: str) -> tuple[Path | None, str]:
    """The first of some files that is a certain checkpoint.

    Args:
        places: where to look; see :meth:`dagaug.hdf5.provenance.Provenance.checkpoint_places`.
        wanted: its SHA-256, in hexadecimal.

    Returns:
        the file; or None, and the reason.
    """
    found = [place for place in places if place.is_file()]
    for place in found:
        if sha256(place) == wanted:
            return place, ""
    if found:
        hashes = f"SHA-256 {sha256(found[0])[:12]}…, not {wanted[:12]}…"
        return None, f"{found[0]}: not the checkpoint that made the file ({hashes})"
    return None, f"{places[0]}: not found" if places else "the file names no checkpoint"


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with ``prefix/`` before their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix/``, without it; reverses :func:`add_prefix`."""
    start = prefix + "/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Load all weights of a network.

    Args:
        module: the network.
        tensors: its state dict.
        origin: file of the tensors, for the message.

    Raises:
        CheckpointError: names or shapes differ from the network's.
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(
            f"{origin}: holds networks of other shapes than these options create; use the options of its training"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments as ``PARAMETER/NAME``, without its hyper-parameters."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, moments in state.items()
        for name, value in moments.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the moments that :func:`optimizer_tensors` returned; hyper-parameters stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
