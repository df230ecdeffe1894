"""Write the true answers of an HDF5 file's morphs of the built-in birds, the ceiling of what morphs can be worth.

python examples/true_answers.py runs/RUN/cub-refs10.h5 ./cub truth
dagaug score --arms real,real+dagaug,cutout,cutwarp --arm truth=truth
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import typer
from rich.progress import track

from dagaug.flock import true_morph
from dagaug.store import Store


def main(file: Path, data: Path, out: Path) -> None:
    """Render each morph's source species in its reference's pose, light and place, into class folders."""
    if out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} is not empty; what lies there would be taken for true answers, too")
    with Store(file) as store:
        table, header = store.images, store.header
        for row in track(np.flatnonzero(table.synthetic).tolist(), "Rendering"):
            source, reference = (header.files[int(column[row])] for column in (table.source, table.reference))
            image = true_morph(data, source, reference).image
            if header.variants[int(table.variant[row])] == "mirror":
                image = image[:, ::-1]
            folder = out / header.classes[int(table.label[row])]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{row:06d}.png"), image[:, :, ::-1])


if __name__ == "__main__":
    typer.run(main)
