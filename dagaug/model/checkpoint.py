"""Checkpoints: tensors as safetensors, everything else as JSON in the same file's header; nothing is unpickled.

One checkpoint is one file, so that it is replaced in one step and never half written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dagaug.runtime.errors import CheckpointError

__all__ = [
    "MODEL_FILE",
    "STATE_FILE",
    "load",
    "load_module",
    "newest_run",
    "optimizer_tensors",
    "prefixed",
    "restore_optimizer",
    "save",
    "sha256",
    "under",
]

MODEL_FILE = "model.safetensors"
"""A finished run's networks."""


STATE_FILE = "state.safetensors"
"""What an unfinished run needs to go on."""

_HEADER = "dagaug"


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a checkpoint; it appears under its name only when it is whole.

    Raises:
        CheckpointError: it cannot be written (no space, no permission).
    """
    temporary = path.with_name(path.name + ".tmp")
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(plain, temporary, metadata={_HEADER: json.dumps(header, sort_keys=True)})
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({error}); free some space or choose --out") from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and header.

    Raises:
        CheckpointError: it is missing, corrupt, or none of dagaug's.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train one first: dagaug train DATA")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            if not isinstance(header, dict):
                raise ValueError("its header is not an object")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (not a dict)
    except KeyError as error:
        raise CheckpointError(f"{path}: not a checkpoint of dagaug (its header is missing)") from error
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:  # deep JSON is a RecursionError
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); train again or restore it") from error


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def newest_run(root: Path = Path("runs")) -> Path:
    """The most recently finished run below ``root``.

    Raises:
        CheckpointError: there is none; an unfinished one is named.
    """
    finished = sorted(root.glob(f"*/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
    if finished:
        return finished[-1].parent
    unfinished = sorted(root.glob(f"*/{STATE_FILE}"))
    if unfinished:
        raise CheckpointError(
            f"{unfinished[-1].parent}: its training is not finished; run the same dagaug train command again"
        )
    raise CheckpointError(f"no checkpoint found under {root}/; train one first: dagaug train DATA")


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under longer names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that :func:`prefixed` named, under their own names."""
    start = prefix + "/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Give a network its weights.

    Raises:
        CheckpointError: names or shapes do not fit.
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(
            f"{origin}: holds other networks than these options make; use the options it was trained with"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments, named by parameter number; its hyper-parameters are the caller's."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, moments in state.items()
        for name, value in moments.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what :func:`optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
