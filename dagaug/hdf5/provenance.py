"""Provenance: the options, data folder and checkpoint that an HDF5 file was made with, from its ``/options``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

__all__ = ["Background", "OutputFrame", "Provenance"]

Background = Literal["reference", "source", "other"]
"""The image behind a morph's object: its reference, its source, or the source's next reference."""

OutputFrame = Literal["whole", "crop"]
"""What is stored of a morph: the whole background image with the morph in it, or the patch alone."""


@dataclass(frozen=True)
class Provenance:
    """The entries of ``/options`` that later commands use. An entry that is missing or of another type has its default.

    Attributes:
        data: path of the data folder, absolute, or as it was given to an older version; empty if unknown.
        data_given: the same path as given to the command, relative to the folder where the command ran.
        layout: the layout of the data folder, ``auto`` if unknown.
        split_seed: seed of the split into training and test images; by default the run's seed.
        per_class: limit of training images per class; None without a limit.
        framing: JSON of :class:`dagaug.data.object_patches.Framing` (how images were cropped for the networks), not
            validated; None if unknown.
        frame: ``whole`` if morphs are stored in the whole image, ``crop`` if only the patch is stored.
        background: the image that gives the morphs' background.
        checkpoint: path of the generator's weights, absolute, or as it was given to an older version; empty if unknown.
        checkpoint_given: the same path as given to the command.
        checkpoint_hub: name of these weights on the hub with the commit, ``hf-hub:USER/NAME@COMMIT``; empty if they did
            not come from there.
        judges: SHA-256 of the classifiers that selected the morphs, in hexadecimal; empty if unknown.
        batch_size: number of candidates per batch; None if unknown.
        masks: path of the folder with the given masks of objects, absolute, or as it was given to an older version;
            empty without any.
        masks_given: the same path as given to the command.
        masks_sha256: hash of the masks' content, in hexadecimal; empty without any.
        licences: licence of each pretrained network whose weights made or selected the images, as far as it is known.
        pairs: path of the table of pairs; None if references were drawn at random.
        others: all other entries.
    """

    data: str = ""
    data_given: str = ""
    layout: str = "auto"
    split_seed: int = 0
    per_class: int | None = None
    framing: object = None
    frame: OutputFrame = "whole"
    background: Background = "reference"
    checkpoint: str = ""
    checkpoint_given: str = ""
    checkpoint_hub: str = ""
    judges: str = ""
    batch_size: int | None = None
    masks: str = ""
    masks_given: str = ""
    masks_sha256: str = ""
    licences: Mapping[str, str] = field(default_factory=dict)
    pairs: str | None = None
    others: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls, options: Mapping[str, object], seed: int = 0) -> Provenance:
        """Read the JSON object of ``/options``.

        Args:
            options: the JSON object.
            seed: the run's seed, an attribute of the file.
        """
        known = {one.name for one in fields(cls)} - {"others"}
        backgrounds: dict[object, Background] = {name: name for name in get_args(Background)}
        background, batch_size = options.get("background"), _integer(options, "batch_size")
        split_seed = _integer(options, "split_seed")
        return cls(
            data=_text(options, "data"),
            data_given=_text(options, "data_given"),
            layout=_text(options, "layout") or "auto",
            split_seed=seed if split_seed is None else split_seed,
            per_class=_integer(options, "per_class"),
            framing=options.get("framing"),
            frame="crop" if options.get("frame") == "crop" else "whole",
            background=backgrounds.get(background, "reference") if isinstance(background, str) else "reference",
            checkpoint=_text(options, "checkpoint"),
            checkpoint_given=_text(options, "checkpoint_given"),
            checkpoint_hub=_text(options, "checkpoint_hub"),
            judges=_text(options, "judges"),
            batch_size=batch_size if batch_size and batch_size > 0 else None,
            masks=_text(options, "masks"),
            masks_given=_text(options, "masks_given"),
            masks_sha256=_text(options, "masks_sha256"),
            licences=_texts(options, "licences"),
            pairs=_text(options, "pairs") or None,
            others={name: value for name, value in options.items() if name not in known},
        )

    def data_folder(self, file: Path) -> Path | None:
        """The data folder, where it is now: at its absolute path, or as it lay to the HDF5 file ``file``.

        A relative path is looked for in the current folder only if an older version wrote the file: another data set
        may have the same name there. None if the folder is not found.
        """
        places = [file.parent / name for name in (self.data, self.data_given) if name]
        if self.data and not self.data_given:
            places.append(Path(self.data))
        return next((place for place in places if place.exists()), None)

    def checkpoint_places(self, file: Path) -> tuple[Path, ...]:
        """Where the checkpoint may lie now, the likeliest place first; empty if the HDF5 file ``file`` names none.

        Its hash tells whether a file in one of these places is the checkpoint.
        """
        names = [name for name in (self.checkpoint, self.checkpoint_given) if name]
        return _places(file, names, file.with_name(Path(names[0]).name)) if names else ()

    def mask_places(self, file: Path) -> tuple[Path, ...]:
        """Where the folder of masks may lie now, the likeliest place first; the masks' hash tells whether it is it."""
        return _places(file, [name for name in (self.masks, self.masks_given) if name])

    @property
    def size(self) -> int | None:
        """Side in pixels of the patches that the networks saw; None if unknown."""
        return _integer(self.framing, "size") if isinstance(self.framing, Mapping) else None


def _places(file: Path, names: Sequence[str], *beside: Path) -> tuple[Path, ...]:
    """Stored paths as they lay to the HDF5 file, then further places, then the paths in the current folder."""
    return tuple(dict.fromkeys([*(file.parent / name for name in names), *beside, *map(Path, names)]))


def _text(options: Mapping[str, object], name: str) -> str:
    value = options.get(name)
    return value if isinstance(value, str) else ""


def _texts(options: Mapping[str, object], name: str) -> dict[str, str]:
    value = options.get(name)
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, Mapping) else {}


def _integer(options: Mapping[str, object], name: str) -> int | None:
    value = options.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
