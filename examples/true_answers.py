"""Write the true answers of the morphs in an HDF5 file of the built-in birds: the upper bound for morphs.

python examples/true_answers.py runs/RUN/cub-refs10.h5 ./cub truth
dagaug score --arms real,real+dagaug,cutout,cutwarp --arm truth=truth

--spoil degrades them in one way, to show which property of a morph matters: blur (Gaussian, one pixel), limbs (the
source's neck, wings and tail), shape (the reference's proportions), labels (one in ten is random).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.progress import track

from dagaug.birds.dataset import true_morph
from dagaug.hdf5.reader import Store


class Spoil(StrEnum):
    """Ways to degrade true answers."""

    blur = "blur"
    limbs = "limbs"
    shape = "shape"
    labels = "labels"


def main(
    file: Path,
    data: Path,
    out: Path,
    spoil: Annotated[Spoil | None, typer.Option(help="Degrade the answers in this way.")] = None,
) -> None:
    """Render each morph's source species in its reference's pose, light and background, into class folders."""
    if out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} is not empty; its images would be taken for true answers")
    rng = np.random.default_rng(0)
    with Store(file) as store:
        table, header = store.images, store.header
        for row in track(np.flatnonzero(table.synthetic).tolist(), "Rendering"):
            source, reference = (header.files[int(column[row])] for column in (table.source, table.reference))
            image = true_morph(
                data, source, reference,
                limbs_of="source" if spoil == Spoil.limbs else "reference",
                shape_of="reference" if spoil == Spoil.shape else "source",
            ).image  # fmt: skip
            if spoil == Spoil.blur:
                image = cv2.GaussianBlur(image, (0, 0), 1.0)
            if header.variants[int(table.variant[row])] == "mirror":
                image = image[:, ::-1]
            label = int(table.label[row])
            if spoil == Spoil.labels and rng.random() <= 0.1:
                label = int(rng.integers(len(header.classes)))
            folder = out / header.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{row:06d}.png"), image[:, :, ::-1])


if __name__ == "__main__":
    typer.run(main)
