"""The arithmetic of augmenting: every image encoded once, morphs in full batches, the classifier in the same breath.

References' structures and backdrops are made once and kept on disk (:mod:`dagaug.encodings`); a source's appearance is
read once, for all its morphs, when its turn comes. While a batch is computed, the next one's references are read and
the one before goes back to the host.

Structures are always computed in the same blocks of images and sources in the same groups, so that what comes out
does not depend on who computes it, in which order, or after how many interruptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from dagaug.augment.encodings import Encodings, record_type
from dagaug.augment.plan import UNMORPHED, VIEW_OF, VIEWS, Plan
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.devices import autocast, batch_size_for, fitting
from dagaug.compute.tensors import to_bytes, to_tensor
from dagaug.data.foreground import cut_out, fill_background
from dagaug.model.networks import Appearance, Structure
from dagaug.model.translators import ReferenceTranslator, composite
from dagaug.runtime.files import telling_writes
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["Engine", "Morphs"]

_BLOCK = 64  # images that are encoded at a time


@dataclass(frozen=True)
class Morphs:
    """Candidates as they were generated.

    Attributes:
        images: patches, on the plan's backgrounds.
        cover: where a patch differs from the image that gave its background, 255 wholly; for blending it into that.
        probabilities: of each class, by the classifier that did not learn from the source.
    """

    images: UInt8[np.ndarray, "M S S 3"]
    cover: UInt8[np.ndarray, "M S S"]
    probabilities: Float32[np.ndarray, "M K"]


@dataclass(frozen=True)
class _Drawn:
    """A batch's results, still on the device; fields as in :class:`Morphs`."""

    images: UInt8[Tensor, "B S S 3"]
    cover: UInt8[Tensor, "B S S"]
    probabilities: Float32[Tensor, "B K"]

    def fetch(self) -> Morphs:
        return Morphs(self.images.cpu().numpy(), self.cover.cpu().numpy(), self.probabilities.cpu().numpy())


@dataclass(frozen=True)
class _Sources:
    """What a part's sources give to its morphs, and which of them each candidate is made of."""

    rows: Int64[np.ndarray, " U"]
    of: Int64[np.ndarray, " M"]
    structure: Structure
    appearance: Appearance


@dataclass(frozen=True)
class _Wanted:
    """What a batch's candidates are to be like.

    Attributes:
        references: their records.
        behind, hole: backgrounds, and where those were painted over (255).
        unmorphed: which of them are cut-outs.
    """

    references: np.ndarray
    behind: UInt8[np.ndarray, "B S S 3"]
    hole: UInt8[np.ndarray, "B S S"]
    unmorphed: Bool[np.ndarray, " B"]

    def __getitem__(self, rows: slice | np.ndarray) -> _Wanted:
        return _Wanted(self.references[rows], self.behind[rows], self.hole[rows], self.unmorphed[rows])


class Engine:
    """Morphs any source into the pose of any reference.

    Args:
        translator: the networks, in evaluation mode.
        patches: of all images that the plan may name.
        judges: the classifiers, on the networks' device.
        judged_by: for each patch the row of the classifiers' images, -1 for an image that none has seen.
        batch_size: candidates that are computed at a time; halved when memory runs out. None: what suits the device.
        scratch: folder for the table of encodings, or the name of a table that other processes use too.
    """

    def __init__(
        self,
        translator: ReferenceTranslator,
        patches: UInt8[np.ndarray, "N S S 3"],
        judges: CrossFitted,
        judged_by: np.ndarray,
        *,
        device: torch.device,
        batch_size: int | None,
        scratch: Path,
    ) -> None:
        # Measured on two CPU cores: images are read 1.5 and morphed 1.3 times as fast as channels first.
        self.translator = translator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.patches, self.judges, self.judged_by = patches, judges, judged_by
        self.device, self._batch_size, self._scratch = device, batch_size, scratch
        self._table: Encodings | None = None

    @property
    def batch_size(self) -> int:
        """Candidates that are computed at a time; found at the first use where none was given."""
        if self._batch_size is None:
            self._batch_size = batch_size_for(self.device, self._try)
        return self._batch_size

    def _try(self, count: int) -> None:
        images = to_tensor(self.patches[np.arange(count) % len(self.patches)], self.device)
        with torch.inference_mode():
            with autocast(self.device):
                structure, appearance = self.translator.read(images)
                result = composite(self.translator.finished(appearance, structure, structure), images)
            self.judges.probabilities_of_tensor(result, np.zeros(count, np.int64))

    @property
    def table(self) -> Encodings:
        """The encodings."""
        if self._table is None:
            with torch.inference_mode():
                structure, _ = self.translator.dae.structure(to_tensor(self.patches[:1], self.device))
            record = record_type(structure, self.patches.shape[1])
            self._table = Encodings(record, len(VIEWS) * len(self.patches), self._scratch)
        return self._table

    # encoding

    def blocks(self, plan: Plan, parts: Sequence[slice]) -> list[int]:
        """The blocks of :meth:`encode_block` that these parts of a plan need."""
        needed = [np.zeros(0, np.int64)]
        for part in parts:
            view = VIEW_OF[plan.variant[part]]
            needed += [self._record(plan.source[part], 0), self._record(plan.reference[part], view)]
            if plan.background is not None:
                needed.append(self._record(plan.background[part], view))
        rows = np.unique(np.concatenate(needed))
        view, row = np.divmod(rows, len(self.patches))
        return np.unique(view * self._blocks + row // _BLOCK).tolist()

    @property
    def _blocks(self) -> int:
        return -(-len(self.patches) // _BLOCK)

    def _record(self, row: np.ndarray, view: np.ndarray | int) -> np.ndarray:
        return np.asarray(np.asarray(view, np.int64) * len(self.patches) + row)

    def encode(self, progress: Progress = SILENT, blocks: Sequence[int] | None = None) -> None:
        """Encode every image once in each view, or only some blocks of them."""
        chosen = range(len(VIEWS) * self._blocks) if blocks is None else blocks
        with telling_writes(self._scratch, "what was finished is kept"):
            for number in chosen:
                first, patches = self._patches_of(number)
                self.table.reserve(first, len(patches))
        with (
            ThreadPoolExecutor(1) as painter,
            progress.task("Encoding", sum(map(self.block_length, chosen)), "images") as task,
        ):
            pending: Future[None] | None = None
            for number in chosen:
                first, patches, structure = self._encoded(number)
                if pending is not None:
                    pending.result()
                pending = painter.submit(self._finish, first, patches, structure)
                task.advance(len(patches))
            if pending is not None:
                pending.result()

    def encode_block(self, number: int) -> int:
        """Encode one block; returns how many images it has."""
        first, patches, structure = self._encoded(number)
        self._finish(first, patches, structure)
        return len(patches)

    def block_length(self, number: int) -> int:
        """How many images a block has."""
        return len(self._patches_of(number)[1])

    def _patches_of(self, number: int) -> tuple[int, UInt8[np.ndarray, "B S S 3"]]:
        view, block = divmod(number, self._blocks)
        patches = self.patches[block * _BLOCK : (block + 1) * _BLOCK]
        if VIEWS[view] == "mirrored":
            patches = patches[:, :, ::-1]
        return int(self._record(np.array(block * _BLOCK), view)), patches

    def _encoded(self, number: int) -> tuple[int, UInt8[np.ndarray, "B S S 3"], Structure]:
        first, patches = self._patches_of(number)

        # The last block is filled up: the last bits of an image's structure may depend on how many are computed.
        filled = patches[np.minimum(np.arange(_BLOCK), len(patches) - 1)]

        def compute(start: int, stop: int) -> Structure:
            with autocast(self.device):
                return self.translator.dae.structure(to_tensor(filled[start:stop], self.device))[0]

        with torch.inference_mode():
            structure = Structure.joined(fitting(compute, 0, _BLOCK, self.device))
        return first, patches, structure[torch.arange(len(patches), device=self.device)]

    def _finish(self, first: int, patches: UInt8[np.ndarray, "B S S 3"], structure: Structure) -> None:
        """Paint the objects over and write."""
        objects = structure.object[:, 0].cpu().numpy()
        behind, holes = [], []
        for patch, mask in zip(patches, objects, strict=True):
            image, hole = fill_background(np.ascontiguousarray(patch), mask)
            behind.append(image)
            holes.append(hole)
        self.table.put(first, structure, np.stack(behind), np.stack(holes))

    def backdrops(
        self, rows: Int64[np.ndarray, " B"], variant: UInt8[np.ndarray, " B"]
    ) -> tuple[UInt8[np.ndarray, "B S S 3"], UInt8[np.ndarray, "B S S"]]:
        """Images without their objects, as variants see them, and where those were painted over (255)."""
        return Encodings.backdrops(self.table.take(self._record(rows, VIEW_OF[variant])))

    def objects(self, rows: Int64[np.ndarray, " B"]) -> Float32[np.ndarray, "B S S"]:
        """The learned masks of images, in [0, 1]."""
        return _masks(Encodings.structure(self.table.take(self._record(rows, 0)), torch.device("cpu")))

    # morphing

    def morph(self, plan: Plan, part: slice) -> Morphs:
        """Generate and judge the candidates of a part of the plan, which may be empty; its blocks are encoded."""
        if part.start == part.stop:
            size = self.patches.shape[1]
            nothing = np.zeros((0, len(self.judges.classes)), np.float32)
            return Morphs(np.zeros((0, size, size, 3), np.uint8), np.zeros((0, size, size), np.uint8), nothing)
        done: list[Morphs] = []
        with torch.inference_mode(), ThreadPoolExecutor(1) as reader:
            sources = self._sources(plan.source[part])
            waiting: list[_Drawn] = []
            for start, stop, wanted in self._wanted(plan, part, reader):
                drawn = self._morph(sources, start - part.start, stop - part.start, wanted.result())
                # the batch before is fetched only now, when this one keeps the device busy
                done += [batch.fetch() for batch in waiting]
                waiting = drawn
            done += [batch.fetch() for batch in waiting]
        return Morphs(
            np.concatenate([batch.images for batch in done]),
            np.concatenate([batch.cover for batch in done]),
            np.concatenate([batch.probabilities for batch in done]),
        )

    def _wanted(
        self, plan: Plan, part: slice, reader: ThreadPoolExecutor
    ) -> Iterator[tuple[int, int, Future[_Wanted]]]:
        """Batches, each with what its candidates are to be like, of which the next one's is being read."""
        ahead: tuple[int, int, Future[_Wanted]] | None = None
        for start in range(part.start, part.stop, self.batch_size):
            stop = min(start + self.batch_size, part.stop)
            following = (start, stop, reader.submit(self._read, plan, slice(start, stop)))
            if ahead is not None:
                yield ahead
            ahead = following
        if ahead is not None:
            yield ahead

    def _read(self, plan: Plan, part: slice) -> _Wanted:
        variant = plan.variant[part]
        view = VIEW_OF[variant]
        references = self.table.take(self._record(plan.reference[part], view))
        behind = references if plan.background is None else self.table.take(self._record(plan.background[part], view))
        return _Wanted(references, *Encodings.backdrops(behind), UNMORPHED[variant])

    def _sources(self, source: Int64[np.ndarray, " M"]) -> _Sources:
        rows, of = np.unique(source, return_inverse=True)
        records = self.table.take(self._record(rows, 0))

        def compute(start: int, stop: int) -> tuple[Structure, Appearance]:
            structure = Encodings.structure(records[start:stop], self.device)
            images = to_tensor(self.patches[rows[start:stop]], self.device)
            with autocast(self.device):
                return structure, self.translator.dae.appearance(images, structure)

        pieces = [
            piece
            for first in range(0, len(rows), _BLOCK)
            for piece in fitting(compute, first, min(first + _BLOCK, len(rows)), self.device)
        ]
        structure = Structure.joined([structure for structure, _ in pieces])
        return _Sources(rows, of, structure, Appearance.joined([appearance for _, appearance in pieces]))

    def _morph(self, sources: _Sources, start: int, stop: int, wanted: _Wanted) -> list[_Drawn]:
        """One batch, or its halves: candidates ``start`` to ``stop`` of the part that ``sources`` are of."""
        return fitting(
            lambda first, last: self._draw(sources, sources.of[first:last], wanted[first - start : last - start]),
            start, stop, self.device,
        )  # fmt: skip

    def _draw(self, sources: _Sources, of: Int64[np.ndarray, " B"], wanted: _Wanted) -> _Drawn:
        if not wanted.unmorphed.any():
            result, cover = self._redrawn(sources, of, wanted)
        else:
            result = torch.empty((len(of), 3, *wanted.hole.shape[1:]), device=self.device)
            result = result.contiguous(memory_format=torch.channels_last)
            cover = torch.empty(wanted.hole.shape, dtype=torch.uint8, device=self.device)
            for chosen, make in ((wanted.unmorphed, self._cut_out), (~wanted.unmorphed, self._redrawn)):
                rows = np.flatnonzero(chosen)
                if len(rows):
                    result[rows], cover[rows] = make(sources, of[rows], wanted[rows])
        judge = np.maximum(self.judged_by[sources.rows[of]], 0)
        return _Drawn(to_bytes(result), cover, self.judges.probabilities_of_tensor(result, judge))

    def _redrawn(
        self, sources: _Sources, of: Int64[np.ndarray, " B"], wanted: _Wanted
    ) -> tuple[Float[Tensor, "B 3 S S"], UInt8[Tensor, "B S S"]]:
        chosen = torch.from_numpy(of).to(self.device)
        structure = Encodings.structure(wanted.references, self.device)
        with autocast(self.device):
            morph = self.translator.finished(sources.appearance[chosen], sources.structure[chosen], structure)
        result = composite(morph, to_tensor(wanted.behind, self.device))
        cover = (255 * morph.mask[:, 0].clamp(0, 1)).round().to(torch.uint8)
        return result, torch.maximum(cover, torch.from_numpy(wanted.hole).to(self.device))

    def _cut_out(
        self, sources: _Sources, of: Int64[np.ndarray, " B"], wanted: _Wanted
    ) -> tuple[Float[Tensor, "B 3 S S"], UInt8[Tensor, "B S S"]]:
        masks = _masks(sources.structure[torch.from_numpy(of).to(self.device)])
        images, cover = cut_out(self.patches[sources.rows[of]], masks, wanted.behind, wanted.hole)
        return to_tensor(images, self.device), torch.from_numpy(cover).to(self.device)


def _masks(structure: Structure) -> Float32[np.ndarray, "B S S"]:
    return structure.object[:, 0].clamp(0, 1).float().cpu().numpy()
