"""The arithmetic of augmenting: every image encoded once, morphs in full batches, the classifier in the same breath.

Encodings of all images are kept in one table on disk that is mapped into memory (and unlinked at once, so that
nothing remains of it), because each image is a source once and a reference often.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from dagaug.classifier import CrossFitted
from dagaug.errors import UsageError
from dagaug.foreground import fill_background
from dagaug.networks import Appearance, Structure
from dagaug.outputs import telling_writes
from dagaug.planning import VARIANTS, Plan
from dagaug.progress import SILENT, Progress
from dagaug.translators import ReferenceTranslator, composite
from dagaug.workloads import to_pixels

__all__ = ["Engine", "Morphs", "pick_device", "to_tensor"]

_BACKDROPS = 4096  # how many are kept

_Batch = TypeVar("_Batch", Structure, Appearance)


def to_tensor(images: UInt8[np.ndarray, "B H W 3"], device: torch.device) -> Float[Tensor, "B 3 H W"]:
    """From bytes, channels last, to [-1, 1], channels first."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes a GPU where there is one.

    Raises:
        UsageError: this machine has none such.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name in ("cuda", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    if name == "cpu":
        return torch.device("cpu")
    raise UsageError(f"--device {name}: not on this machine; choose auto or cpu")


class _Table:
    """Tensors of many images by row, in a file that has no name."""

    def __init__(self, rows: int, folder: Path) -> None:
        self.rows, self.folder = rows, folder
        self.columns: dict[str, np.ndarray] = {}

    def put(self, start: int, stop: int, record: Structure | Appearance) -> None:
        """Keep the first ``stop - start`` of the record's rows."""
        for field in fields(record):
            values = getattr(record, field.name)[: stop - start].float().cpu().numpy()
            if field.name not in self.columns:
                self.columns[field.name] = self._column((self.rows, *values.shape[1:]))
            self.columns[field.name][start:stop] = values

    def _column(self, shape: tuple[int, ...]) -> np.ndarray:
        size = math.prod(shape) * np.dtype(np.float32).itemsize
        with (
            telling_writes(self.folder, "what was finished is kept"),
            tempfile.TemporaryFile(dir=self.folder) as file,  # gone from the folder at once, open until unmapped
        ):
            # Without its space reserved, a full disk ends the process (SIGBUS) when the memory is written to.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.memmap(file, np.float32, "r+", shape=shape)

    def take(self, kind: type[_Batch], rows: np.ndarray, device: torch.device) -> _Batch:
        return kind(
            **{
                field.name: torch.from_numpy(self.columns[field.name][rows]).to(device, non_blocking=True)
                for field in fields(kind)
            }
        )


@dataclass(frozen=True)
class Morphs:
    """Candidates as they were generated.

    Attributes:
        images: patches, on their references' backgrounds.
        cover: where a patch differs from its reference, 255 wholly; for blending it into the whole image.
        probabilities: of each class, by the classifier that did not learn from the source.
    """

    images: UInt8[np.ndarray, "M S S 3"]
    cover: UInt8[np.ndarray, "M S S"]
    probabilities: Float32[np.ndarray, "M K"]


class Engine:
    """Morphs any source into the pose of any reference.

    Args:
        translator: the networks, in evaluation mode.
        patches: of all images that the plan may name.
        judges: the classifiers, on the networks' device.
        judged_by: for each patch the row of the classifiers' images, -1 for an image that none has seen.
        batch_size: candidates that are computed at a time; halved when memory runs out.
        scratch: folder for the table of encodings.
    """

    def __init__(
        self,
        translator: ReferenceTranslator,
        patches: UInt8[np.ndarray, "N S S 3"],
        judges: CrossFitted,
        judged_by: np.ndarray,
        *,
        device: torch.device,
        batch_size: int,
        scratch: Path,
    ) -> None:
        self.translator = translator.to(device)
        self.patches, self.judges, self.judged_by = patches, judges, judged_by
        self.device, self.batch_size, self.scratch = device, batch_size, scratch
        count = len(patches)
        self._sources = _Table(count, scratch)
        self._structures = {variant: _Table(count, scratch) for variant in VARIANTS}
        self._backgrounds: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def encode(self, progress: Progress = SILENT) -> None:
        """Encode every image once as a source, and once as a reference in each variant."""
        count = len(self.patches)
        with torch.inference_mode(), progress.task("Encoding", count, "images") as task:
            for start, stop in self._batches(0, count):
                self._encode(start, stop)
                task.advance(stop - start)

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        for first in range(start, stop, self.batch_size):
            yield first, min(first + self.batch_size, stop)

    def _encode(self, start: int, stop: int) -> None:
        # The last batch is filled up: the last bits of a result may depend on the size of its batch.
        rows = np.minimum(np.arange(start, start + self.batch_size), stop - 1)
        images = to_tensor(self.patches[rows], self.device)
        structure, appearance = self.translator.read(images)
        self._structures["reference"].put(start, stop, structure)
        self._sources.put(start, stop, appearance)
        mirrored, _ = self.translator.dae.structure(images.flip(-1))
        self._structures["mirror"].put(start, stop, mirrored)

    def backdrop(self, row: int, variant: int) -> tuple[UInt8[np.ndarray, "S S 3"], UInt8[np.ndarray, "S S"]]:
        """A reference without its object, and where that was painted over (255)."""
        key = (row, variant)
        if key not in self._backgrounds:
            structure = self._structures[VARIANTS[variant]].columns["object"][row, 0]
            patch = self.patches[row] if VARIANTS[variant] == "reference" else self.patches[row][:, ::-1].copy()
            while len(self._backgrounds) >= _BACKDROPS:
                self._backgrounds.pop(next(iter(self._backgrounds)))
            self._backgrounds[key] = fill_background(patch, structure)
        return self._backgrounds[key]

    def morph(self, plan: Plan, part: slice) -> Morphs:
        """Generate and judge the candidates of a part of the plan, which may be empty."""
        if part.start == part.stop:
            size = self.patches.shape[1]
            nothing = np.zeros((0, len(self.judges.classes)), np.float32)
            return Morphs(np.zeros((0, size, size, 3), np.uint8), np.zeros((0, size, size), np.uint8), nothing)
        images: list[np.ndarray] = []
        covers: list[np.ndarray] = []
        probabilities: list[np.ndarray] = []
        for start, stop in self._batches(part.start, part.stop):
            with torch.inference_mode():
                done = self._with_less_memory(plan, start, stop)
            for into, values in zip((images, covers, probabilities), done, strict=True):
                into.append(values)
        return Morphs(np.concatenate(images), np.concatenate(covers), np.concatenate(probabilities))

    def _with_less_memory(self, plan: Plan, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One batch; where memory does not suffice, its halves."""
        try:
            return self._morph(plan.source[start:stop], plan.reference[start:stop], plan.variant[start:stop])
        except (torch.OutOfMemoryError, MemoryError):
            if stop - start < 2:
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        middle = (start + stop) // 2
        first, second = self._with_less_memory(plan, start, middle), self._with_less_memory(plan, middle, stop)
        return tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))  # type: ignore[return-value]

    def _morph(
        self, source: np.ndarray, reference: np.ndarray, variant: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        appearance = self._sources.take(Appearance, source, self.device)
        of_source = self._structures["reference"].take(Structure, source, self.device)
        wanted = self._pick(reference, variant)
        morph = self.translator(appearance, of_source, wanted)
        backdrops = [self.backdrop(int(row), int(code)) for row, code in zip(reference, variant, strict=True)]
        behind = to_tensor(np.stack([image for image, _ in backdrops]), self.device)
        result = composite(morph, behind)
        cover = (255 * morph.mask[:, 0].clamp(0, 1)).round().to(torch.uint8).cpu().numpy()
        cover = np.maximum(cover, np.stack([hole for _, hole in backdrops]))
        rows = np.maximum(self.judged_by[source], 0)
        return to_pixels(result), cover, self.judges.probabilities_of_tensor(result, rows).cpu().numpy()

    def _pick(self, reference: np.ndarray, variant: np.ndarray) -> Structure:
        """The references' structures, each in its variant."""
        parts = {code: np.flatnonzero(variant == code) for code in range(len(VARIANTS))}
        found = [
            self._structures[VARIANTS[code]].take(Structure, reference[rows], self.device)
            for code, rows in parts.items()
            if len(rows)
        ]
        order = np.argsort(np.concatenate(list(parts.values())), kind="stable")
        back = torch.from_numpy(order).to(self.device)
        return Structure(
            **{
                field.name: torch.cat([getattr(part, field.name) for part in found])[back]
                for field in fields(Structure)
            }
        )
