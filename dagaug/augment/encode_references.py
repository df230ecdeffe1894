"""Encoder of references: computes structures and inpainted backgrounds once and stores them in a table.

Images are always encoded in the same blocks. So the stored bits do not depend on who encodes a block, or when.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from dagaug.augment.encoding_table import Encodings, mirror_records, record_type
from dagaug.augment.morph_plan import ORIENTATION_OF, ORIENTATIONS, MorphPlan
from dagaug.compute.devices import autocast, split_to_fit
from dagaug.data.grabcut_and_inpainting import PatchBox, fill_background
from dagaug.data.mask_files import PatchMask
from dagaug.model.frozen_readings import StructureReader
from dagaug.model.given_masks import with_given_masks, with_masks
from dagaug.model.networks import join_batches
from dagaug.model.training_free import PoseStructure, PoseTranslator
from dagaug.runtime.disk_cache import DiskCache
from dagaug.runtime.files import explain_write_errors
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.streamed_array import ImageArray

__all__ = ["ImageEncoder", "mirror_boxes", "object_masks"]

_Encoded = tuple[int, UInt8[np.ndarray, "B S S 3"], PoseStructure, list[PatchMask | None]]
"""Index of the first record, patches, structures, given masks."""


class ImageEncoder:
    """Encodes images in both orientations; once where the structure of a mirror image follows from the image's.

    Attributes:
        boxes: of the objects, as fractions of the patches' side; None where unknown.

    Args:
        translator: the networks, in evaluation mode, on ``device``.
        patches: all images that a plan may name, RGB.
        device: where to compute.
        scratch: folder for the table, or the name of a table that other processes use, too.
        boxes: of the objects, as fractions of the patches' side; None where unknown.
        masks: given masks of the objects, in [0, 255]; the model estimates those that are None.
        block_size: images computed at a time.
        cache: keeps what frozen networks say about images; None reads them anew.
    """

    def __init__(
        self,
        translator: PoseTranslator,
        patches: ImageArray,
        *,
        device: torch.device,
        scratch: Path,
        boxes: Sequence[PatchBox | None] | None = None,
        masks: Sequence[PatchMask | None] | None = None,
        block_size: int = 64,
        cache: DiskCache | None = None,
    ) -> None:
        self.translator, self.patches, self.block_size = translator, patches, block_size
        self.boxes: list[PatchBox | None] = [None] * len(patches) if boxes is None else list(boxes)
        self._masks: Sequence[PatchMask | None] = [None] * len(patches) if masks is None else masks
        self._device, self._scratch = device, scratch
        self._reader = StructureReader(translator, device, cache)

    @cached_property
    def table(self) -> Encodings:
        """The table; its file is made at the first use."""
        with torch.inference_mode():
            structure = self._reader.structure(self.patches[:1], self.boxes[:1])
        record = record_type(structure, self.patches.shape[1], backgrounds=self.translator.stores_backgrounds)
        return Encodings(record, self.orientations * len(self.patches), self._scratch)

    @property
    def orientations(self) -> int:
        """Orientations that are encoded, 1 or 2."""
        return 1 if self.translator.structure_type.shows_mirror_image else len(ORIENTATIONS)

    # encoding

    def blocks(self, plan: MorphPlan, parts: Sequence[slice]) -> list[int]:
        """Numbers of the blocks that parts of a plan need, for :meth:`encode`."""
        needed = [np.zeros(0, np.int64)]
        for part in parts:
            orientation = ORIENTATION_OF[plan.variant[part]]
            needed += [self._record(plan.source[part], 0), self._record(plan.reference[part], orientation)]
            if plan.background is not None:
                needed.append(self._record(plan.background[part], orientation))
        records = np.unique(np.concatenate(needed))
        orientation, row = np.divmod(records, len(self.patches))
        return np.unique(orientation * self._block_count + row // self.block_size).tolist()

    @property
    def _block_count(self) -> int:
        """Blocks of each orientation."""
        return -(-len(self.patches) // self.block_size)

    def _record(self, row: np.ndarray, orientation: np.ndarray | int) -> np.ndarray:
        encoded = np.minimum(np.asarray(orientation, np.int64), self.orientations - 1)
        return np.asarray(encoded * len(self.patches) + row)

    def encode(self, progress: Progress = SILENT, blocks: Sequence[int] | None = None) -> None:
        """Encode blocks; None encodes every image in all orientations that are encoded.

        Raises:
            StoreError: the table cannot be written.
        """
        chosen = range(self.orientations * self._block_count) if blocks is None else blocks
        with explain_write_errors(self._scratch, "finished shards are kept"):
            for number in chosen:
                self.table.reserve(self._first_record(number), self.block_length(number))
        encoded = (self._encode(number) for number in chosen)
        with (
            ThreadPoolExecutor(1) as writer,
            progress.task("Encoding", sum(map(self.block_length, chosen)), "images") as task,
        ):
            for count in map_ahead(self._write, encoded, writer, ahead=1):
                task.advance(count)

    def encode_block(self, number: int) -> int:
        """Encode one block; returns its number of images.

        Raises:
            OSError: the table cannot be written.
        """
        return self._write(self._encode(number))

    def block_length(self, number: int) -> int:
        """Number of images in a block."""
        return min(self.block_size, len(self.patches) - number % self._block_count * self.block_size)

    def _first_record(self, number: int) -> int:
        """Index of a block's first record."""
        orientation, block = divmod(number, self._block_count)
        return int(self._record(np.array(block * self.block_size), orientation))

    def _patches_of(self, number: int) -> tuple[UInt8[np.ndarray, "B S S 3"], list[PatchBox | None]]:
        """The patches of a block, and their boxes."""
        orientation, block = divmod(number, self._block_count)
        first = block * self.block_size
        patches = self.patches[first : first + self.block_size]
        boxes = self.boxes[first : first + self.block_size]
        if ORIENTATIONS[orientation] == "mirrored":
            patches = patches[:, :, ::-1]
            boxes = mirror_boxes(boxes)
        return patches, boxes

    def _masks_of(self, number: int) -> list[PatchMask | None]:
        """The given masks of a block's patches, in its orientation."""
        orientation, block = divmod(number, self._block_count)
        masks = self._masks[block * self.block_size : (block + 1) * self.block_size]
        step = -1 if ORIENTATIONS[orientation] == "mirrored" else 1
        return [None if mask is None else mask[:, ::step] for mask in masks]

    def _encode(self, number: int) -> _Encoded:
        patches, boxes = self._patches_of(number)
        # The last block is padded: the number of images computed at a time may change the last bits of a structure.
        rows = np.minimum(np.arange(self.block_size), len(patches) - 1)
        padded, padded_boxes = patches[rows], [boxes[row] for row in rows]

        def compute(start: int, stop: int) -> PoseStructure:
            with autocast(self._device):
                return self._reader.structure(padded[start:stop], padded_boxes[start:stop])

        with torch.inference_mode():
            pieces = split_to_fit(compute, 0, self.block_size, self._device)
            structure = join_batches(pieces)
            structure = structure[torch.arange(len(patches), device=self._device)]
        given = self._masks_of(number)
        if self.translator.takes_given_masks:
            structure = with_masks(structure, given)
        return self._first_record(number), patches, structure, given

    def _write(self, encoded: _Encoded) -> int:
        """Inpaint the objects of a block, if that is stored, write its records, return their number."""
        first, patches, structure, given = encoded
        if not self.translator.stores_backgrounds:
            self.table.write(first, structure)
            return len(patches)
        masks = object_masks(structure, given)
        filled = [
            fill_background(np.ascontiguousarray(patch), mask) for patch, mask in zip(patches, masks, strict=True)
        ]
        self.table.write(
            first, structure, np.stack([image for image, _ in filled]), np.stack([area for _, area in filled])
        )
        return len(patches)

    # reading

    def records(self, rows: Int64[np.ndarray, " B"], variant: UInt8[np.ndarray, " B"]) -> np.ndarray:
        """Records of images in the orientations that variants need. The blocks must be encoded.

        Raises:
            OSError: a record was not written.
        """
        orientation = ORIENTATION_OF[variant]
        records = self.table.read(self._record(rows, orientation))
        if self.orientations == 1:
            mirror_records(records, orientation == ORIENTATIONS.index("mirrored"))
        return records

    def original_records(self, rows: Int64[np.ndarray, " B"]) -> np.ndarray:
        """Records of images that are not mirrored."""
        return self.table.read(self._record(rows, 0))

    def backgrounds(
        self, rows: Int64[np.ndarray, " B"], variant: UInt8[np.ndarray, " B"]
    ) -> tuple[UInt8[np.ndarray, "B S S 3"], UInt8[np.ndarray, "B S S"]]:
        """Images without their objects, RGB, in the orientations of variants, and the inpainted area (255)."""
        return self.backgrounds_of(self.records(rows, variant), rows, variant)

    def backgrounds_of(
        self, records: np.ndarray, rows: Int64[np.ndarray, " B"], variant: UInt8[np.ndarray, " B"]
    ) -> tuple[UInt8[np.ndarray, "B S S 3"], UInt8[np.ndarray, "B S S"]]:
        """The same for records that were read: from the table, or inpainted now if the table holds none."""
        if self.translator.stores_backgrounds:
            return Encodings.backgrounds(records)
        side = self.patches.shape[1]
        images, areas = [], []
        for record, row, orientation in zip(records, rows, ORIENTATION_OF[variant], strict=True):
            patch = self.patches[row][:, :: -1 if ORIENTATIONS[orientation] == "mirrored" else 1]
            mask = record["object"][0].astype(np.float32) / 255
            image, area = fill_background(np.ascontiguousarray(patch), mask, reach=max(side // 64, 1))
            images.append(image)
            areas.append(area)
        return np.stack(images), np.stack(areas)

    def objects(self, rows: Int64[np.ndarray, " B"]) -> Float32[np.ndarray, "B S S"]:
        """Object masks, given or estimated, in [0, 1]."""
        records = self.original_records(rows)
        structure = Encodings.structure(records, torch.device("cpu"), self.translator.structure_type)
        return object_masks(structure, self.given_masks(rows))

    def given_masks(self, rows: Int64[np.ndarray, " B"]) -> list[PatchMask | None]:
        """Given masks of images that are not mirrored."""
        return [self._masks[row] for row in rows]


def mirror_boxes(boxes: Sequence[PatchBox | None]) -> list[PatchBox | None]:
    """The boxes of the objects in the mirror images of patches."""
    return [None if box is None else (1 - box[0] - box[2], box[1], box[2], box[3]) for box in boxes]


def object_masks(structure: PoseStructure, given: Sequence[PatchMask | None]) -> Float32[np.ndarray, "B S S"]:
    """Object masks in [0, 1]: the given ones, and those of the structures where none is given."""
    return with_given_masks(structure.object, given)[:, 0].clamp(0, 1).float().cpu().numpy()
