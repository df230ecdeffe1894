"""Content of a shard: real images as stored, and morphs selected, composited and encoded, with their objects."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64, UInt8

from dagaug.augment.compositing import Compositor
from dagaug.augment.engine import MorphBatch
from dagaug.augment.morph_plan import IS_CUTOUT
from dagaug.augment.prepared_augmentation import Job, Shard
from dagaug.augment.selection import KEPT, select
from dagaug.data.dataset_records import Box, Sample
from dagaug.data.image_files import Skipped, decode_bytes, encode, is_plain_jpeg
from dagaug.data.mask_files import read_whole_mask
from dagaug.data.square_crops import clipped_box
from dagaug.hdf5.object_masks import Objects, box_of_mask, encode_mask
from dagaug.hdf5.schema import Candidates, Images
from dagaug.hdf5.shards import ShardContent
from dagaug.runtime.errors import DataError, ImageError

__all__ = ["ShardMaker", "ShardResult"]


@dataclass(frozen=True)
class ShardResult:
    """A finished shard.

    Attributes:
        content: what is written to the shard's file.
        skipped: files that could not be read.
    """

    content: ShardContent
    skipped: tuple[Skipped, ...] = ()


_Object = tuple[bytes, Box | None]
"""Encoded mask and box of an image's object; empty and None where unknown."""


@dataclass(frozen=True)
class _Judged:
    """Columns of a shard's candidates that follow from the judges."""

    label: Int32[np.ndarray, " M"]
    predicted: Int32[np.ndarray, " M"]
    confidence: Float[np.ndarray, " M"]
    verdict: UInt8[np.ndarray, " M"]


class ShardMaker:
    """Makes the content of a job's shards.

    Args:
        job: the work.
        min_confidence: smallest confidence that the selection accepts, in [0, 1].
    """

    def __init__(self, job: Job, min_confidence: float = 0.0) -> None:
        self._job, self._min_confidence = job, min_confidence
        self._compositor = Compositor(job.dataset, job.patches, job.options.frame)

    def encode_image(self, image: UInt8[np.ndarray, "H W 3"]) -> bytes:
        """An RGB image in the encoding of the output."""
        options = self._job.options
        return image.tobytes() if options.encoding == "raw" else encode(image, options.encoding, options.quality)

    def composite(self, morphs: MorphBatch, row: int, background_row: int, variant: int) -> UInt8[np.ndarray, "H W 3"]:
        """The image to store for a candidate; see :meth:`Compositor.composite`."""
        return self._compositor.composite(morphs.images[row], morphs.cover[row], background_row, variant)

    def real(self, shard: Shard) -> ShardResult:
        """Real images, re-encoded. A JPEG file is copied byte for byte if the output holds JPEG, too.

        Raises:
            DataError: an image has become unreadable since the job was prepared.
        """
        job = self._job
        rows, encoded, sizes = [], [], []
        objects: list[_Object] = []
        skipped: list[Skipped] = []
        read, unreadable = set(job.file_of.tolist()), {skip.path for skip in job.patches.skipped}
        for row in job.real[shard.part]:
            path = job.dataset.file(job.files[row])
            if path in unreadable:
                continue
            try:
                data = path.read_bytes()
                image = decode_bytes(data, path)
            except (ImageError, OSError) as error:
                reason = error.reason if isinstance(error, ImageError) else f"cannot be read ({error.strerror})"
                if row in read:
                    raise DataError(
                        f"{path}: {reason}; it was readable when this run began; restore it and run again, or run the "
                        "same command again without it"
                    ) from error
                skipped.append(Skipped(path, reason))
                continue
            copied = job.options.encoding == "jpeg" and is_plain_jpeg(data, image)
            encoded.append(data if copied else self.encode_image(image))
            rows.append(row)
            sizes.append(image.shape[:2])
            objects.append(_real_object(job.files[row], image.shape[0], image.shape[1]))
        size = np.array(sizes, np.int32).reshape(-1, 2)
        images = Images.real(
            height=size[:, 0],
            width=size[:, 1],
            label=np.array([job.files[row].label for row in rows], np.int32),
            split=np.array([job.files[row].split == "test" for row in rows], np.uint8),
            source=np.array(rows, np.int64),
        )
        return ShardResult(ShardContent(encoded, images, objects=_joined(objects)), tuple(skipped))

    def synthetic(self, shard: Shard, morphs: MorphBatch, pool: ThreadPoolExecutor | None = None) -> ShardResult:
        """Select a shard's candidates; composite and encode the kept ones, in the threads of ``pool``.

        Raises:
            DataError: a background image has become unreadable.
        """
        part, plan, files = shard.part, self._job.plan, self._job.file_of
        judged = self._judge(part, morphs)
        source, reference = files[plan.source[part]], files[plan.reference[part]]
        variant, background = plan.variant[part], plan.background_rows[part]
        kept = np.flatnonzero(judged.verdict == KEPT).astype(np.int64)

        def finish(row: int) -> tuple[bytes, tuple[int, ...], _Object]:
            where = int(background[row]), int(variant[row])
            image = self.composite(morphs, row, *where)
            mask = self._compositor.object_mask(morphs.objects[row], *where)
            return self.encode_image(image), image.shape[:2], (encode_mask(mask), box_of_mask(mask))

        rows = kept.tolist()
        finished = list(map(finish, rows) if pool is None else pool.map(finish, rows))
        size = np.array([size for _, size, _ in finished], np.int32).reshape(-1, 2)
        images = Images(
            height=size[:, 0],
            width=size[:, 1],
            label=judged.label[kept],
            split=np.zeros(len(kept), np.uint8),
            synthetic=np.ones(len(kept), bool),
            source=source[kept],
            reference=reference[kept],
            variant=variant[kept],
            confidence=judged.confidence[kept],
            predicted=judged.predicted[kept],
            candidate=kept,
        )
        candidates = Candidates(
            source, reference, variant, judged.label, judged.predicted, judged.confidence, judged.verdict,
            _positions(kept, len(source)),
        )  # fmt: skip
        objects = _joined([one for _, _, one in finished])
        return ShardResult(ShardContent([data for data, _, _ in finished], images, candidates, objects))

    def _judge(self, part: slice, morphs: MorphBatch) -> _Judged:
        job, options = self._job, self._job.options
        source = job.plan.source[part]
        label = job.patches.labels[source].astype(np.int32)
        predicted = morphs.probabilities.argmax(1).astype(np.int32)
        confidence = morphs.probabilities[np.arange(len(label)), label]
        given_pairs = options.pairs is not None  # all of them are kept
        verdict = select(
            source=source,
            reference=job.plan.reference[part],
            label=label,
            predicted=predicted,
            confidence=confidence,
            group=IS_CUTOUT[job.plan.variant[part]].astype(np.uint8),
            keep="all" if given_pairs else options.keep,
            allow_mislabelled=given_pairs or options.allow_mislabelled,
            min_confidence=0.0 if given_pairs else self._min_confidence,
            max_confidence=1.0 if given_pairs else options.max_confidence,
            correspondence=morphs.correspondence,
            min_correspondence=options.min_correspondence,
            quota=None if job.plan.quota is None else job.plan.quota[part],
        )
        return _Judged(label, predicted, confidence, verdict)


def _real_object(sample: Sample, height: int, width: int) -> _Object:
    """The given mask of a real image, and its given box or that of the mask; an unusable mask counts as unknown."""
    given = None if sample.mask is None else read_whole_mask(sample.mask, (height, width), sample.mask_values)
    mask: Bool[np.ndarray, "H W"] | None = None if given is None or isinstance(given, str) else given > 127
    box = None if sample.box is None else clipped_box(sample.box, height, width)
    if mask is None or not mask.any():
        return b"", box
    return encode_mask(mask), box or box_of_mask(mask)


def _joined(objects: Sequence[_Object]) -> Objects:
    unknown = (np.nan,) * 4
    boxes = np.array([unknown if box is None else box for _, box in objects], np.float32).reshape(-1, 4)
    return Objects(boxes, [mask for mask, _ in objects])


def _positions(kept: Int64[np.ndarray, " K"], count: int) -> Int64[np.ndarray, " M"]:
    """For each of ``count`` candidates its place among the kept ones, -1 for the others."""
    positions = np.full(count, -1, np.int64)
    positions[kept] = np.arange(len(kept))
    return positions
