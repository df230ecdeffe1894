"""A trained DA-GAN as a file: how it is described, built, saved and loaded for use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from dagaug.data.patches import Framing
from dagaug.model import checkpoint
from dagaug.model.presets import Attention, Mode
from dagaug.model.translators import PaperTranslator, ReferenceTranslator
from dagaug.runtime.errors import CheckpointError

__all__ = [
    "GENERAL",
    "GENERAL_FILE",
    "JUDGES_FILE",
    "SCRATCH",
    "ModelCard",
    "TrainedModel",
    "Translator",
    "build_translator",
    "find_judges",
    "load_model",
    "save_model",
    "start_from",
]

Translator = ReferenceTranslator | PaperTranslator

GENERAL = "general"


SCRATCH = "scratch"


GENERAL_FILE = Path(__file__).with_name("general.safetensors")
"""Networks that learned to change poses on :mod:`dagaug.creatures` alone (``examples/pretrain.py``), in 16 bits."""

JUDGES_FILE = "judges.safetensors"
"""The classifiers that select, in the folder of the run."""


class ModelCard(BaseModel):
    """What must be known of a model to use it.

    Attributes:
        mode: ``reference`` or ``paper``.
        classes: names of the classes it was trained on; empty where the images had no labels.
        framing: how images become patches.
        regions, half_size, sharpness: the attended regions (eqs. 1, 2, 4).
        steps: optimiser steps it was trained for.
        seed: of its training.
        data: the data folder's name, for people.
        per_class: how many training images of each class it saw at most; None for all.
        split_seed: the seed that drew the split of its data; None where the folder gave one.
        own_pixels: least share of the source's own pixels in a morph.
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

    @property
    def attention(self) -> Attention:
        """The attended regions."""
        return Attention(self.regions, self.half_size, self.sharpness)


@dataclass(frozen=True)
class TrainedModel:
    """A model that is ready to use.

    Attributes:
        card: what it is.
        translator: its networks, in evaluation mode.
        path: its file.
        sha256: hash of the file.
    """

    card: ModelCard
    translator: Translator
    path: Path
    sha256: str


def build_translator(mode: Mode, attention: Attention, own_pixels: float = 0.0) -> Translator:
    """New networks."""
    return ReferenceTranslator(attention, own_pixels) if mode == "reference" else PaperTranslator(attention)


def start_from(translator: Translator, tensors: Mapping[str, Tensor]) -> list[str]:
    """Give networks the weights of others, as far as they have the same shapes.

    Returns:
        names of the layers that keep their own.
    """
    own = translator.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    translator.load_state_dict(fitting, strict=False)
    return sorted({name.rpartition(".")[0] for name in own if name not in fitting})


def save_model(path: Path, card: ModelCard, tensors: dict[str, Tensor]) -> None:
    """Write a model's file, and its card beside it as JSON for people to read."""
    checkpoint.save(path, tensors, {"kind": "model", "card": card.model_dump(mode="json")})
    path.with_suffix(".json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_model(path: Path) -> TrainedModel:
    """Read a model, from its file or from the run folder that holds it.

    Raises:
        CheckpointError: it is missing, unfinished, corrupt, or no model of dagaug's.
    """
    if path.is_dir():
        if not (path / checkpoint.MODEL_FILE).exists() and (path / checkpoint.STATE_FILE).exists():
            raise CheckpointError(f"{path}: its training is not finished; run the same dagaug train command again")
        path = path / checkpoint.MODEL_FILE
    tensors, header = checkpoint.load(path)
    try:
        card = ModelCard.model_validate(header.get("card"))
    except ValidationError as error:
        raise CheckpointError(f"{path}: not a model that this version of dagaug can read; train again") from error
    translator = build_translator(card.mode, card.attention, card.own_pixels)
    checkpoint.load_module(translator, tensors, path)
    return TrainedModel(card, translator.eval().requires_grad_(False), path, checkpoint.sha256(path))


def find_judges(file: Path, options: Mapping[str, object]) -> Path | None:
    """The classifiers that selected for an HDF5 file with these options: beside its checkpoint or beside itself."""
    folders = (Path(str(options.get("checkpoint", ""))).parent, file.parent)
    return next((folder / JUDGES_FILE for folder in folders if (folder / JUDGES_FILE).is_file()), None)
