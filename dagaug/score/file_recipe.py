"""How an HDF5 file was made: the options of its GAN and of its augmentation, so that both can be repeated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dagaug.augment.options import AugmentOptions
from dagaug.classifiers.backbones import LITE0
from dagaug.hdf5.schema import Header
from dagaug.model.checkpoint import FROZEN, MODEL_FILE
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.runtime.errors import CheckpointError, DataError, UsageError
from dagaug.score.control_images import find_checkpoint, is_untrained
from dagaug.training.options import TrainOptions
from dagaug.training.run_folder import OPTIONS_FILE

__all__ = ["FileRecipe", "FrozenRecipe", "read_recipe"]


@dataclass(frozen=True)
class FrozenRecipe:
    """A model without training.

    Attributes:
        framing: JSON of :class:`dagaug.data.object_patches.Framing`.
        features: the frozen network.
        weights: file of its weights; None for those that belong to the name.
    """

    framing: str
    features: str
    weights: Path | None

    def as_dict(self) -> dict[str, object]:
        """The recipe as JSON can store it."""
        weights = None if self.weights is None else str(self.weights)
        return {"framing": json.loads(self.framing), "features": self.features, "weights": weights}


@dataclass(frozen=True)
class FileRecipe:
    """What an HDF5 file was made with.

    Attributes:
        model: options of the GAN's training, or the model without training.
        augment: options of the augmentation; its batch size follows from the device again.
    """

    model: TrainOptions | FrozenRecipe
    augment: AugmentOptions

    def digest(self, files: object) -> str:
        """Eight hexadecimal digits of a hash of the recipe and of the files that it is applied to, as JSON values."""
        model = self.model
        made = model.as_dict() if isinstance(model, FrozenRecipe) else model.model_dump(mode="json")
        text = json.dumps([made, self.augment.model_dump(mode="json"), files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_recipe(path: Path, header: Header, checkpoint: Path | None = None) -> FileRecipe:
    """Read how an HDF5 file was made.

    Args:
        path: the HDF5 file.
        header: its header.
        checkpoint: take the model from here instead: a run folder, a model, or ``frozen`` for morphs without training.

    Raises:
        CheckpointError: there is no checkpoint, or no options of its training beside it.
        UsageError: the morphs are those of a file of pairs, which names images that smaller sets lack.
    """
    augment = _augment_options(path, header)
    if augment.pairs is not None:
        raise UsageError(
            f"was made from the pairs in {augment.pairs}, which cannot be repeated with fewer images",
            option="store", value=path,
        )  # fmt: skip
    if checkpoint is not None and str(checkpoint) != FROZEN:
        return FileRecipe(_of_model(load_model(checkpoint)), augment)
    model = load_model(find_checkpoint(path, header))
    return FileRecipe(_frozen(model) if checkpoint is not None else _of_model(model), augment)


def _augment_options(path: Path, header: Header) -> AugmentOptions:
    stored = {name: value for name, value in header.options.items() if name in AugmentOptions.model_fields}
    try:
        return AugmentOptions.model_validate({**stored, "batch_size": None})
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(f"{path}: does not say how it was made ({reason}); make it again: dagaug augment") from error


def _of_model(model: TrainedModel) -> TrainOptions | FrozenRecipe:
    return _frozen(model) if is_untrained(model) else _training_of(model.path.parent)


def _frozen(model: TrainedModel) -> FrozenRecipe:
    card = model.card
    name, weights = (LITE0, "") if card.features is None else (card.features.name, card.features.weights)
    return FrozenRecipe(card.framing.model_dump_json(), name, Path(weights) if weights else None)


def _training_of(run: Path) -> TrainOptions:
    """The options of a finished training, from its run folder."""
    path = run / OPTIONS_FILE
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))["identity"]
        known = {name: value for name, value in identity.items() if name in TrainOptions.model_fields}
        return TrainOptions.model_validate(known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: has no options of the training that made {run / MODEL_FILE}, which is to be repeated",
            remedies={"checkpoint": FROZEN},
        ) from error
