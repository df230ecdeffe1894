"""A trained DA-GAN: its model card, building its networks, saving, loading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from dagaug.classifiers.frozen_feature_maps import FeatureExtractor, build_extractor
from dagaug.data.object_patches import Framing
from dagaug.hub.download import fetch_run
from dagaug.hub.names import is_hub_name, parse_hub_name
from dagaug.model import checkpoint
from dagaug.model.frozen_encoder_translator import FeatureTranslator
from dagaug.model.mode_translators import PaperTranslator, ReferenceTranslator
from dagaug.model.task_presets import GENERAL, SCRATCH, AttentionSettings, Mode
from dagaug.model.training_free import FrozenTranslator, Reduction
from dagaug.runtime.errors import CheckpointError

__all__ = [
    "GENERAL",
    "GENERAL_FILE",
    "JUDGES_FILE",
    "SCRATCH",
    "FeatureCard",
    "ModelCard",
    "TrainedModel",
    "Translator",
    "build_translator",
    "find_judges",
    "load_model",
    "save_model",
    "start_from",
]

Translator = ReferenceTranslator | FrozenTranslator | PaperTranslator

GENERAL_FILE = Path(__file__).with_name("general.safetensors")
"""Networks trained only on :mod:`dagaug.training.creature_pairs` (``examples/pretrain.py``), in 16 bits."""

JUDGES_FILE = "judges.safetensors"
"""Name of the file with the judges (classifiers that select morphs), in the run folder."""


class FeatureCard(BaseModel):
    """Description of the frozen network that a model rests on; its weights are not stored with the model.

    Attributes:
        name: name of the network, ``lite0`` or timm's.
        weights: file of its weights; empty if they come with a package.
        weights_sha256: hash of the weights.
        licence: licence of the weights, for display.
        input_size: side in pixels to which patches are resized for it.
        layer_weights: of each layer in the similarity of two cells.
        dimensions: of the reduced features.
        grid: side of the feature maps in cells.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weights: str = ""
    weights_sha256: str
    licence: str
    input_size: int = Field(ge=32, le=2048)
    layer_weights: tuple[float, ...]
    dimensions: int = Field(ge=1, le=4096)
    grid: int = Field(ge=4, le=256)

    def build(self) -> tuple[FeatureExtractor, Reduction]:
        """The frozen network, and its reduction with statistics of zero, which a checkpoint fills.

        Raises:
            CheckpointError: the weights that are installed or in the file are others.
        """
        extractor = build_extractor(
            self.name, input_size=self.input_size, weights=Path(self.weights) if self.weights else None
        )
        if extractor.sha256() != self.weights_sha256:
            raise CheckpointError(
                f"{self.weights or self.name}: other weights than those that this model was fitted with; fit it again"
            )
        return extractor, Reduction(extractor.channels, self.layer_weights, self.dimensions, self.grid)


class ModelCard(BaseModel):
    """Description of a model, stored in its file.

    Attributes:
        mode: ``reference`` or ``paper``.
        classes: names of the classes of the training images; empty if they had no labels.
        framing: how patches are cut from images.
        regions, half_size, sharpness: the attended regions (eqs. 1, 2, 4).
        steps: optimiser steps of the training.
        seed: seed of the training.
        data: name of the data set, for display.
        per_class: largest number of training images of each class; None for all.
        split_seed: seed of the random split of the data; None if the data set has its own split.
        own_pixels: least share of the source's own pixels in a morph.
        features: the frozen network that the model rests on (without training if ``steps`` is 0); None for networks
            that were trained whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode
    classes: tuple[str, ...]
    framing: Framing
    regions: int = Field(ge=1, le=1024)
    half_size: float = Field(gt=0, allow_inf_nan=False)
    sharpness: float = Field(gt=0, allow_inf_nan=False)
    steps: int = Field(ge=0)
    seed: int
    data: str
    per_class: int | None = None
    split_seed: int | None = None
    own_pixels: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    features: FeatureCard | None = None

    @property
    def attention(self) -> AttentionSettings:
        """The attended regions."""
        return AttentionSettings(self.regions, self.half_size, self.sharpness)

    @property
    def attends(self) -> bool:
        """Whether the model attends to regions; a model without training does not."""
        return self.features is None or self.steps > 0


@dataclass(frozen=True)
class TrainedModel:
    """A model that is ready to use.

    Attributes:
        card: its description.
        translator: its networks on the CPU, in evaluation mode, without gradients.
        path: its file.
        sha256: SHA-256 of the file, in hexadecimal.
        hub: name on the hub with the commit, if it came from there; else empty.
    """

    card: ModelCard
    translator: Translator
    path: Path
    sha256: str
    hub: str = ""


def build_translator(mode: Mode, attention: AttentionSettings, own_pixels: float = 0.0) -> Translator:
    """Networks with random weights; ``own_pixels`` (only in ``reference`` mode) as in :class:`ModelCard`."""
    return ReferenceTranslator(attention, own_pixels) if mode == "reference" else PaperTranslator(attention)


def start_from(translator: Translator, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load the weights that have the same name and shape in both; other layers keep their weights.

    Returns:
        names of the layers that kept their weights.
    """
    own = translator.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    translator.load_state_dict(fitting, strict=False)
    return sorted({name.rpartition(".")[0] for name in own if name not in fitting})


def save_model(path: Path, card: ModelCard, tensors: dict[str, Tensor]) -> None:
    """Write a model's file, and its card as a JSON file beside it.

    Raises:
        CheckpointError: the model's file cannot be written.
    """
    checkpoint.save(path, tensors, {"kind": "model", "card": card.model_dump(mode="json")})
    path.with_suffix(".json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_model(path: Path) -> TrainedModel:
    """Read a model from its file or its run folder, or from the hub: ``hf-hub:USER/NAME[@REVISION]``.

    Raises:
        CheckpointError: the model is missing, not fully trained, corrupt, or not a model of dagaug.
        UsageError, HubError: it is not a name on the hub, or cannot be downloaded.
    """
    hub = ""
    if is_hub_name(path):
        fetched = fetch_run(parse_hub_name(path))
        path, hub = fetched.path, str(fetched.name)
    if path.is_dir():
        if not (path / checkpoint.MODEL_FILE).exists() and (path / checkpoint.STATE_FILE).exists():
            raise CheckpointError(f"{path}: the training is not finished; run the same dagaug train command again")
        path = path / checkpoint.MODEL_FILE
    tensors, header = checkpoint.load(path)
    try:
        card = ModelCard.model_validate(header.get("card"))
    except ValidationError as error:
        raise CheckpointError(f"{path}: not a model that this version of dagaug can read; train again") from error
    if card.features is not None:
        extractor, reduction = card.features.build()
        if card.steps:
            translator: Translator = FeatureTranslator(extractor, reduction, card.attention, card.own_pixels)
            checkpoint.load_module(translator, tensors, path)
        else:
            translator = FrozenTranslator(extractor, reduction)
            checkpoint.load_module(reduction, tensors, path)
    else:
        translator = build_translator(card.mode, card.attention, card.own_pixels)
        checkpoint.load_module(translator, tensors, path)
    return TrainedModel(card, translator.eval().requires_grad_(False), path, checkpoint.sha256(path), hub)


def find_judges(file: Path, checkpoints: Sequence[Path]) -> Path | None:
    """The file of the judges that selected the morphs of an HDF5 file, in its checkpoint's folder or its own.

    Args:
        file: the HDF5 file.
        checkpoints: where its checkpoint may lie; may be empty.

    Returns:
        None if no folder has the file.
    """
    folders = (*(place.parent for place in checkpoints), file.parent)
    return next((folder / JUDGES_FILE for folder in folders if (folder / JUDGES_FILE).is_file()), None)
