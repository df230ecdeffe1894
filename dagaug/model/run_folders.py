"""Folders of training runs: the names of their checkpoints, and the newest finished one. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from dagaug.runtime.errors import CheckpointError

__all__ = ["FROZEN", "MODEL_FILE", "STATE_FILE", "newest_run"]

MODEL_FILE = "model.safetensors"
"""Name of the file with the networks of a finished training, in its run folder."""

FROZEN = "frozen"
"""In place of a checkpoint: morphs without training. The names of their folders contain it."""

STATE_FILE = "state.safetensors"
"""Name of the file from which an unfinished training resumes."""


def newest_run(root: Path = Path("runs")) -> Path:
    """The most recently finished run folder in ``root``; folders of models without training do not count.

    Raises:
        CheckpointError: there is no finished run; the message names an unfinished one.
    """
    found = sorted(root.glob(f"*/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
    finished = [path for path in found if f"-{FROZEN}-" not in path.parent.name]
    if finished:
        return finished[-1].parent
    unfinished = sorted(root.glob(f"*/{STATE_FILE}"))
    if unfinished:
        raise CheckpointError(
            f"{unfinished[-1].parent}: the training is not finished; run the same dagaug train command again"
        )
    raise CheckpointError(f"no checkpoint found under {root}/; train one first: dagaug train DATA")
