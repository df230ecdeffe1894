"""What morphs are measured against: images that lack one of their ingredients each, as many as there are morphs.

``cutout`` is the unmorphed source on the morph's background, the reference's unless another was asked for: what is left
of a gain above it is the worth of the pose. ``cutwarp`` is that cut-out under a random articulated warp: what is left
above it is the worth of having a reference. ``random`` is morphs as the generator gives them: what is left above it is
the worth of the selection.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Integer, UInt8
from pydantic import ValidationError
from torch import Tensor

from dagaug.augment.compositing import Frame, Frames
from dagaug.augment.engine import Engine
from dagaug.augment.judge_practice import bent
from dagaug.augment.plan import VARIANTS, Plan, background_in, variant_name
from dagaug.augment.provenance import backgrounds_of
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.data import image_files as imaging
from dagaug.data import regions
from dagaug.data.dataset import Dataset
from dagaug.data.foreground import cut_out
from dagaug.data.patches import Framing, Patches, read_patches
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Header, Images
from dagaug.model.checkpoint import MODEL_FILE, sha256
from dagaug.model.trained_model import find_judges, load_model
from dagaug.model.translators import ReferenceTranslator
from dagaug.runtime.errors import CheckpointError, DataError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["CONTROLS", "Control", "Controls", "SelectorCheck", "check_selector", "find_checkpoint"]

Control = Literal["cutout", "cutwarp", "random"]


CONTROLS: tuple[Control, ...] = get_args(Control)

_BATCH = 64


_MORPHS = 512  # candidates in memory at a time


def find_checkpoint(path: Path, header: Header, given: Path | None = None) -> Path:
    """The checkpoint that made an HDF5 file: the one it names or, if both were moved, the one beside it.

    Args:
        path: the HDF5 file.
        header: its header.
        given: a model's file or its run folder, instead of the one that the file names.

    Raises:
        CheckpointError: it is gone, or another one lies in its place.
    """
    named = str(header.options.get("checkpoint", ""))
    if not named and given is None:
        raise CheckpointError(f"{path}: names no checkpoint, so that its controls cannot be made; use --no-controls")
    if given is not None and given.is_dir():
        given = given / MODEL_FILE
    places = [given] if given is not None else [Path(named), path.with_name(MODEL_FILE)]
    found = [place for place in places if place.is_file()]
    for place in found:
        if sha256(place) == header.checkpoint_sha256:
            return place
    if not found:
        raise CheckpointError(
            f"{places[0]}: the checkpoint that {path} was made with is not there; "
            "name it with --checkpoint, or leave the controls out with --no-controls"
        )
    raise CheckpointError(
        f"{found[0]} is not the checkpoint that {path} was made with (SHA-256 {sha256(found[0])[:12]}…, "
        f"not {header.checkpoint_sha256[:12]}…); name it with --checkpoint, or use --no-controls"
    )


class Controls:
    """Makes the controls of the synthetic images of one HDF5 file.

    Args:
        path: the HDF5 file.
        dataset: the real images that it was made from.
        size: side of the resulting images.
        seed: of the warps and of the random candidates.
        checkpoint: where the checkpoint lies now, if not where the file says.
        device: where to compute.
        progress: is told of the images.

    Raises:
        CheckpointError: see :func:`find_checkpoint`.
        DataError: an image that the file was made from is not in the data, or cannot be read.
    """

    def __init__(
        self,
        path: Path,
        dataset: Dataset,
        *,
        size: int,
        seed: int = 0,
        checkpoint: Path | None = None,
        device: torch.device | str = "cpu",
        progress: Progress = SILENT,
    ) -> None:
        self._path, self._dataset, self._size, self._seed = path, dataset, size, seed
        self._device, self._progress = torch.device(device), progress
        with Store(path) as store:
            self._header, images, candidates = store.header, store.images, store.candidates
            behind = backgrounds_of(store)
        variants = tuple(map(variant_name, self._header.variants))
        if variants != VARIANTS[: len(variants)]:
            raise DataError(f"{path}: has other variants than this dagaug makes; use --no-controls")
        try:
            self._model = load_model(find_checkpoint(path, self._header, checkpoint))
        except CheckpointError as error:
            if "--no-controls" in str(error):
                raise
            raise CheckpointError(f"{error}, or leave the controls of {path} out with --no-controls") from error
        if not isinstance(self._model.translator, ReferenceTranslator):
            raise CheckpointError(f"{self._model.path}: does not morph; use --no-controls")
        rows = np.flatnonzero(images.synthetic)
        self._kept = _columns(images, rows, behind)
        self._all = Plan(
            candidates.source.astype(np.int64),
            candidates.reference.astype(np.int64),
            candidates.variant.astype(np.uint8),
            np.array([0, len(candidates)], np.int64),
        ).on(background_in(self._header.options))

    def make(self, control: Control) -> tuple[UInt8[np.ndarray, "N S S 3"], Int64[np.ndarray, " N"]]:
        """The images of a control, whole, and their labels; they lie in a file without a name, not in memory."""
        plan = self._drawn() if control == "random" else self._kept
        made = self._morphs(plan) if control == "random" else self._pasted(plan, warped=control == "cutwarp")
        frame: Frame = "crop" if self._header.options.get("frame") == "crop" else "whole"
        frames = Frames(self._dataset, self._patches, frame)
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            out = np.memmap(file, np.uint8, "w+", shape=(len(plan), self._size, self._size, 3))
        with self._progress.task(f"Making control {control}", len(plan), "images") as task:
            for row, (patch, cover) in enumerate(made):
                behind = int(self._row_of[plan.behind[row]])
                image = frames.put(patch, cover, behind, int(plan.variant[row]))
                out[row] = regions.cut(self._as_stored(image), _square(image), self._size)
                task.advance()
        return out, self._header.files_label[plan.source].astype(np.int64)

    def _drawn(self) -> Plan:
        """As many candidates as were kept, at random, kept or not."""
        if len(self._all) < len(self._kept):
            raise DataError(f"{self._path}: does not list all candidates, so that the arm random cannot be made")
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, 29]))
        rows = np.sort(rng.choice(len(self._all), len(self._kept), replace=False))
        return self._all.take(rows)

    def _morphs(self, plan: Plan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Morphs of a plan over the file's rows, as patches with their covers."""
        rows = Plan(
            self._row_of[plan.source], self._row_of[plan.reference], plan.variant, plan.starts,
            self._row_of[plan.behind],
        )  # fmt: skip
        for start in range(0, len(plan), _MORPHS):
            morphs = self._engine.morph(rows, slice(start, min(start + _MORPHS, len(plan))))
            yield from zip(morphs.images, morphs.cover, strict=True)

    def _pasted(self, plan: Plan, *, warped: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Sources as they are, cut out and pasted on the morphs' backgrounds."""
        for start in range(0, len(plan), _BATCH):
            part = slice(start, min(start + _BATCH, len(plan)))
            source = self._row_of[plan.source[part]]
            pixels, masks = self._patches.images[source].astype(np.float32), self._engine.objects(source)
            if warped:
                seeds = [np.random.SeedSequence([self._seed, 23, row]) for row in range(start, start + len(masks))]
                pixels, masks = bent(pixels, masks, seeds)  # sharpened, as the morphs are
            behind = self._engine.backdrops(self._row_of[plan.behind[part]], plan.variant[part])
            yield from zip(*cut_out(pixels, masks, *behind), strict=True)

    def _as_stored(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """An image after the loss that storing it would have brought."""
        if self._header.encoding != "jpeg":
            return image
        return imaging.decode_bytes(imaging.encode(image, "jpeg", self._header.quality), "control")

    @property
    def _scratch(self) -> Path:
        folder = self._path.parent
        return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())

    @cached_property
    def _patches(self) -> Patches:
        used = np.unique(
            np.concatenate([rows for plan in (self._kept, self._all) for rows in (plan.source, plan.reference)])
        )
        wanted = {self._header.files[row] for row in used.tolist()}
        samples = [sample for sample in self._dataset.train if sample.path.as_posix() in wanted]
        patches = read_patches(self._dataset, samples, self._model.card.framing, progress=self._progress)
        missing = wanted - {sample.path.as_posix() for sample in patches.samples}
        if missing:
            raise DataError(
                f"{self._path}: was made from {min(missing)}, which is no readable training image of "
                f"{self._dataset.root}; restore it, or use --no-controls"
            )
        return patches

    @cached_property
    def _row_of(self) -> Int64[np.ndarray, " F"]:
        """Row among the patches of each file, -1 where none is needed."""
        place = {sample.path.as_posix(): row for row, sample in enumerate(self._patches.samples)}
        return np.array([place.get(file, -1) for file in self._header.files], np.int64)

    @cached_property
    def _engine(self) -> Engine:
        translator, patches = self._model.translator, self._patches.images
        assert isinstance(translator, ReferenceTranslator)
        nobody = np.full(len(patches), -1, np.int64)
        judges = _Unjudged(len(self._header.classes))
        engine = Engine(
            translator, patches, judges, nobody, device=self._device, batch_size=_BATCH, scratch=self._scratch
        )
        engine.encode(self._progress)
        return engine


def _columns(images: Images, rows: Integer[np.ndarray, " M"], behind: Int64[np.ndarray, " N"]) -> Plan:
    """What was kept, as a plan over the file's rows."""
    return Plan(
        images.source[rows].astype(np.int64),
        images.reference[rows].astype(np.int64),
        images.variant[rows].astype(np.uint8),
        np.array([0, len(rows)], np.int64),
        behind[rows],
    )


def _square(image: UInt8[np.ndarray, "H W 3"]) -> regions.Region:
    return regions.region_of(*image.shape[:2], box=None, fit="letterbox")


class _Unjudged(CrossFitted):
    """Nobody's opinion, at no cost."""

    def __init__(self, classes: int) -> None:
        super().__init__((), np.zeros(0, np.int64), np.zeros(0, bool), float("nan"))
        self._count = classes

    def probabilities_of_tensor(
        self, images: Float[Tensor, "B 3 H W"], rows: Integer[np.ndarray, " B"]
    ) -> Float32[Tensor, "B K"]:
        """Zeros."""
        del rows
        return images.new_zeros((len(images), self._count), dtype=torch.float32)


@dataclass(frozen=True)
class SelectorCheck:
    """Whether the classifiers that selected had learned from test images.

    Attributes:
        file: of the classifiers, which keeps a hash of each image that they learned from.
        learned: different images among those.
        test: test images that were looked for.
        seen: how many of them were among those.
    """

    file: str
    learned: int
    test: int
    seen: int


def check_selector(path: Path, dataset: Dataset, progress: Progress = SILENT) -> SelectorCheck | None:
    """Look for the test images among the hashes of what the classifiers that selected learned from.

    Args:
        path: the HDF5 file that they selected for.
        dataset: the real images.
        progress: is told why nothing can be checked.

    Returns:
        None if the classifiers whose hash the file holds do not lie beside it or its checkpoint.
    """
    with Store(path) as store:
        options = store.header.options
    file = find_judges(path, options)
    if file is None:
        return None
    try:
        framing = Framing.model_validate(options.get("framing"))
        judges = CrossFitted.load(file)
    except (CheckpointError, ValidationError) as error:
        progress.say(f"{file}: cannot tell whether the selection saw test images ({str(error).splitlines()[0]})")
        return None
    if judges.sha256() != options.get("judges"):
        progress.say(f"{file}: not the classifiers that selected; cannot tell whether these saw test images")
        return None
    if judges.classes != dataset.classes:
        return None
    patches = read_patches(dataset, dataset.test, framing, progress=progress)
    learned = np.unique(np.concatenate([one.trained_on for one in judges.classifiers]))
    seen = np.zeros(len(patches.images), bool)
    for one in judges.classifiers:
        seen |= one.saw(patches.images)
    return SelectorCheck(str(file), len(learned), len(seen), int(seen.sum()))
