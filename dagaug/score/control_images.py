"""Controls: synthetic images that lack one ingredient of the morphs, in equal number.

- ``cutout`` is the source's object, unmorphed, on the morph's background. A gain over it is due to the pose.
- ``cutwarp`` is that cut-out under a random articulated warp. A gain over it is due to the reference.
- ``random`` is a random choice of candidates, kept or not. A gain over it is due to the selection.
- ``frozen`` has the same sources, references and variants, morphed by frozen pretrained features alone
  (:mod:`dagaug.model.training_free`). A gain over it is due to the training of DA-GAN.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Integer, UInt8
from torch import Tensor

from dagaug.augment.compositing import Compositor
from dagaug.augment.engine import Engine
from dagaug.augment.judge_practice_images import warp_objects
from dagaug.augment.morph_plan import VARIANTS, MorphPlan, variant_name
from dagaug.augment.stored_morph_backgrounds import backgrounds_of
from dagaug.classifiers.backbones import LITE0
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.devices import pick_device
from dagaug.data.dataset_records import Dataset
from dagaug.data.grabcut_and_inpainting import cut_out
from dagaug.data.image_files import encode
from dagaug.data.mask_files import find_masks, hash_masks
from dagaug.data.object_patches import Patches, read_patches
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Header, Images
from dagaug.hub.download import fetch_run
from dagaug.hub.names import is_hub_name, parse_hub_name
from dagaug.model.checkpoint import MODEL_FILE, find_by_hash
from dagaug.model.mode_translators import PaperTranslator
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.model.training_free_checkpoint import fit_training_free
from dagaug.runtime.disk_cache import cache_of
from dagaug.runtime.errors import CheckpointError, DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.files import explain_write_errors
from dagaug.runtime.streamed_array import StreamedArray
from dagaug.score.encoded_images import EncodedImages
from dagaug.score.options import Control

__all__ = ["Controls", "find_checkpoint", "is_untrained", "use_of_features", "with_stored_masks"]

_BATCH = 64

_CHUNK = 512  # candidates in memory at a time


def find_checkpoint(path: Path, header: Header, given: Path | None = None) -> Path:
    """Find the checkpoint that made an HDF5 file, where the file names it or beside it.

    Args:
        path: the HDF5 file.
        header: its header.
        given: a model's file or its run folder, or its name on the hub, instead of the one that the file names.

    Raises:
        CheckpointError: there is no checkpoint, or it is not the one that made the file.
        HubError: it is on the hub and cannot be downloaded.
    """
    remedies: dict[str, object] = {"checkpoint": None, "controls": False}
    places = header.provenance.checkpoint_places(path)
    if not places and given is None:
        raise CheckpointError(f"{path}: names no checkpoint, which the controls need", remedies={"controls": False})
    if given is None and header.provenance.checkpoint_hub and not any(place.is_file() for place in places):
        given = Path(header.provenance.checkpoint_hub)
    if given is not None and is_hub_name(given):
        given = fetch_run(parse_hub_name(given)).path
    if given is not None and given.is_dir():
        given = given / MODEL_FILE
    found, reason = find_by_hash(places if given is None else [given], header.checkpoint_sha256)
    if found is None:
        raise CheckpointError(f"{reason}; the controls of {path} need it", remedies=remedies)
    return found


def use_of_features(path: Path, given: Path | None = None) -> Literal["alone", "partly", "none"]:
    """Whether the model of an HDF5 file is frozen features alone, rests on them, or does not.

    If they are ``alone``, the file's morphs are those of the control ``frozen``.

    Args:
        path: the HDF5 file.
        given: its checkpoint's file or folder, if it is not where the file says.

    Raises:
        CheckpointError: see :func:`find_checkpoint`.
    """
    with Store(path) as store:
        header = store.header
    model = _load(path, find_checkpoint(path, header, given))
    if is_untrained(model):
        return "alone"
    return "none" if model.card.features is None else "partly"


class Controls:
    """Makes the controls of the synthetic images of one HDF5 file.

    Args:
        path: the HDF5 file.
        dataset: the real images that it was made from.
        size: side of the resulting images in pixels.
        seed: seed of the warps and of the random candidates.
        checkpoint: the checkpoint's file or folder, if it is not where the file says.
        execution: where to compute; its progress receives the number of images read.

    Raises:
        CheckpointError: see :func:`find_checkpoint`.
        DataError: an image that the file was made from is not in the data set or cannot be read, or the masks that it
            was made with are not there.
    """

    def __init__(
        self,
        path: Path,
        dataset: Dataset,
        *,
        size: int,
        seed: int = 0,
        checkpoint: Path | None = None,
        execution: Execution = Execution(),
    ) -> None:
        self._path, self._size, self._seed = path, size, seed
        self._device, self._execution = pick_device(execution.device), execution
        with Store(path) as store:
            self._header, images, candidates = store.header, store.images, store.candidates
            backgrounds = backgrounds_of(store)
        self._dataset = with_stored_masks(path, self._header, dataset)
        variants = tuple(map(variant_name, self._header.variants))
        if variants != VARIANTS[: len(variants)]:
            raise DataError(f"{path}: has variants that this version cannot make", remedies={"controls": False})
        self._model = _load(path, find_checkpoint(path, self._header, checkpoint))
        rows = np.flatnonzero(images.synthetic)
        self._kept = _plan_of(images, rows, backgrounds)
        self._all = MorphPlan(
            candidates.source.astype(np.int64),
            candidates.reference.astype(np.int64),
            candidates.variant.astype(np.uint8),
            np.array([0, len(candidates)], np.int64),
        ).with_background(self._header.provenance.background)

    def make(self, control: Control) -> tuple[StreamedArray, Int64[np.ndarray, " N"]]:
        """The images of a control (uint8 RGB, N × S × S × 3, letterboxed) and their labels.

        They are encoded in an unnamed temporary file, and decoded when they are needed.
        """
        plan = self._plan(control)
        if control in ("cutout", "cutwarp"):
            made = self._cutouts(plan, warped=control == "cutwarp")
        else:
            made = self._morphs(plan, self._frozen_engine() if control == "frozen" else self._engine)
        frame = self._header.provenance.frame
        compositor = Compositor(self._dataset, self._patches, frame)
        encoded = EncodedImages(self._size, self._scratch)
        with (
            explain_write_errors(self._scratch, "nothing is lost"),
            self._execution.progress.task(f"Making control {control}", len(plan), "images") as task,
        ):
            for row, (patch, cover) in enumerate(made):
                background = int(self._row_of[plan.background_rows[row]])
                image = compositor.composite(patch, cover, background, int(plan.variant[row]))
                encoded.append(self._encoded(image))
                task.advance()
        images = StreamedArray(len(plan), (self._size, self._size, 3), encoded, execution=self._execution)
        return images, self._header.files_label[plan.source].astype(np.int64)

    def origins(self, control: Control) -> tuple[tuple[str, ...], ...]:
        """The files that each image of a control was made from: source, reference and background."""
        plan, files = self._plan(control), self._header.files
        rows = zip(plan.source.tolist(), plan.reference.tolist(), plan.background_rows.tolist(), strict=True)
        return tuple(tuple(dict.fromkeys(files[row] for row in those)) for those in rows)

    def _plan(self, control: Control) -> MorphPlan:
        """The candidates that a control stands for."""
        return self._random_plan() if control == "random" else self._kept

    def _random_plan(self) -> MorphPlan:
        """As many random candidates as were kept, from all of them."""
        if len(self._all) < len(self._kept):
            raise DataError(
                f"{self._path}: does not list all candidates, which the control random needs",
                remedies={"controls": False},
            )
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, 29]))
        rows = np.sort(rng.choice(len(self._all), len(self._kept), replace=False))
        return self._all.take(rows)

    def _morphs(self, plan: MorphPlan, engine: Engine) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The morphs of a plan over the file's rows: patches (uint8) and their masks in [0, 1]."""
        rows = MorphPlan(
            self._row_of[plan.source], self._row_of[plan.reference], plan.variant, plan.starts,
            self._row_of[plan.background_rows],
        )  # fmt: skip
        for start in range(0, len(plan), _CHUNK):
            morphs = engine.morph(rows, slice(start, min(start + _CHUNK, len(plan))))
            yield from zip(morphs.images, morphs.cover, strict=True)

    def _cutouts(self, plan: MorphPlan, *, warped: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The sources' objects, as they are or warped, on the morphs' backgrounds."""
        for start in range(0, len(plan), _BATCH):
            part = slice(start, min(start + _BATCH, len(plan)))
            source = self._row_of[plan.source[part]]
            pixels, masks = self._patches.images[source].astype(np.float32), self._engine.encoder.objects(source)
            if warped:
                seeds = [np.random.SeedSequence([self._seed, 23, row]) for row in range(start, start + len(masks))]
                pixels, masks = warp_objects(pixels, masks, seeds)
            backgrounds = self._engine.encoder.backgrounds(self._row_of[plan.background_rows[part]], plan.variant[part])
            yield from zip(*cut_out(pixels, masks, *backgrounds), strict=True)

    def _encoded(self, image: UInt8[np.ndarray, "H W 3"]) -> bytes:
        """The image in the encoding of the HDF5 file if it is lossy, else as PNG."""
        return encode(image, "jpeg", self._header.quality) if self._header.encoding == "jpeg" else encode(image, "png")

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
        given = bool(self._header.provenance.masks_sha256)
        patches = read_patches(self._dataset, samples, self._model.card.framing, masks=given, execution=self._execution)
        missing = wanted - {sample.path.as_posix() for sample in patches.samples}
        if missing:
            raise DataError(
                f"{self._path}: was made from {min(missing)}, which is not a readable training image of "
                f"{self._dataset.root}; restore it",
                remedies={"controls": False},
            )
        return patches

    @cached_property
    def _row_of(self) -> Int64[np.ndarray, " F"]:
        """Row of each file of the HDF5 file among the patches; -1 for files that are not needed."""
        place = {sample.path.as_posix(): row for row, sample in enumerate(self._patches.samples)}
        return np.array([place.get(file, -1) for file in self._header.files], np.int64)

    @cached_property
    def _engine(self) -> Engine:
        return self._engine_of(self._model)

    def _frozen_engine(self) -> Engine:
        """The engine of the model without training that cuts the same patches."""
        card = self._model.card
        name, weights = (LITE0, "") if card.features is None else (card.features.name, card.features.weights)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            model = fit_training_free(
                self._dataset, Path(folder), name=card.data, framing=card.framing, features=name,
                weights=Path(weights) if weights else None, execution=self._execution,
            )  # fmt: skip
        return self._engine_of(model)

    def _engine_of(self, model: TrainedModel) -> Engine:
        translator, patches = model.translator, self._patches.images
        assert not isinstance(translator, PaperTranslator)
        unlabelled = np.full(len(patches), -1, np.int64)
        judges = _NullJudges(len(self._header.classes))
        engine = Engine(
            translator, patches, judges, unlabelled, device=self._device, batch_size=_BATCH, scratch=self._scratch,
            boxes=self._patches.boxes(), masks=self._patches.masks, cache=cache_of(self._execution),
        )  # fmt: skip
        engine.encoder.encode(self._execution.progress)
        return engine


def is_untrained(model: TrainedModel) -> bool:
    """Whether a model is frozen features alone, without a training."""
    return model.card.features is not None and model.card.steps == 0


def _load(path: Path, checkpoint: Path) -> TrainedModel:
    """Load the checkpoint that made the HDF5 file ``path``.

    Raises:
        CheckpointError: it cannot be read, or does not morph.
    """
    try:
        model = load_model(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error.message} (needed for the controls of {path})", remedies={**error.remedies, "controls": False}
        ) from error
    if model.card.mode != "reference":
        raise CheckpointError(
            f"{model.path}: does not morph poses, but the controls need morphs", remedies={"controls": False}
        )
    return model


def with_stored_masks(path: Path, header: Header, dataset: Dataset) -> Dataset:
    """The data set with the masks that the HDF5 file ``path`` was made with: its own, or those in the named folder.

    Raises:
        DataError: neither are the same masks.
    """
    made = header.provenance
    if not made.masks_sha256:
        return dataset

    def fits(found: Dataset) -> bool:
        pool = found.samples if made.others.get("pairs") else found.subset(made.per_class).train
        return hash_masks(pool) == made.masks_sha256

    if fits(dataset):
        return dataset
    for folder in filter(Path.is_dir, made.mask_places(path)):
        if fits(found := find_masks(dataset, folder)):
            return found
    raise DataError(
        f"{path}: was made with masks from {made.masks}, which have changed or are gone",
        remedies={"masks": None, "controls": False},
    )


def _plan_of(images: Images, rows: Integer[np.ndarray, " M"], backgrounds: Int64[np.ndarray, " N"]) -> MorphPlan:
    """The kept candidates as a plan over the file's rows."""
    return MorphPlan(
        images.source[rows].astype(np.int64),
        images.reference[rows].astype(np.int64),
        images.variant[rows].astype(np.uint8),
        np.array([0, len(rows)], np.int64),
        backgrounds[rows],
    )


class _NullJudges(CrossFitted):
    """Placeholder judges without networks: the probability of each class is zero."""

    def __init__(self, classes: int) -> None:
        super().__init__((), np.zeros(0, np.int64), np.zeros(0, bool), float("nan"))
        self._count = classes

    def probabilities_of_tensor(
        self, images: Float[Tensor, "B 3 H W"], rows: Integer[np.ndarray, " B"]
    ) -> Float32[Tensor, "B K"]:
        """Zero for each image and class."""
        del rows
        return images.new_zeros((len(images), self._count), dtype=torch.float32)
