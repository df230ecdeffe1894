"""Card of a repository of data: what an HDF5 file or an export holds and how it was made, from its own content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from dagaug.exchange.non_image_content import read_manifest
from dagaug.hdf5.provenance import Provenance
from dagaug.hdf5.reader import Store
from dagaug.hub.card_format import code, front_matter, names_in_short, table

__all__ = ["export_card", "file_card"]

_TAGS = ("dagaug", "data-augmentation", "synthetic", "fine-grained", "image-classification")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = "1M<n<10M"
_OF_THE_MACHINE = {"data", "data_given", "masks", "checkpoint", "judges", "weights", "class_map", "pairs", "batch_size"}
"""Options that are not on the card: paths of the machine, and what does not change the images."""

_USE_OF_FILE = """\
```sh
dagaug score DATA {name}     # does it help? DATA is the folder of the real images
dagaug show {name}           # a page and a contact sheet
dagaug export {name} --out FOLDER --to imagefolder
```
"""

_USE_OF_EXPORT = """\
The folder is in the form that `dagaug export` writes; `datasets.load_dataset` reads the images. With its hidden file
`.dagaug-export` it becomes an HDF5 file again: `dagaug import FOLDER --out FILE.h5`.
"""


def file_card(file: Path, repository: str, licence: str) -> str:
    """The card of an HDF5 file.

    Args:
        file: the HDF5 file.
        repository: ``USER/NAME``, for the examples.
        licence: the hub's identifier of a licence.

    Raises:
        StoreError: the file cannot be read.
    """
    with Store(file) as store:
        use = _USE_OF_FILE.format(name=f"hf-hub:{repository}/{file.name}")
        return _card(file.name, store.attributes, store.column, licence, use)


def export_card(folder: Path, licence: str) -> str:
    """The card of a folder that ``dagaug export`` wrote.

    Raises:
        StoreError: the folder's manifest cannot be read.
    """
    manifest = read_manifest(folder)
    return _card(folder.resolve().name, manifest.attributes, manifest.columns.__getitem__, licence, _USE_OF_EXPORT)


def _card(
    title: str, attributes: Mapping[str, str | int], column: Callable[[str], np.ndarray], licence: str, use: str
) -> str:
    classes = [name.decode("utf-8", "replace") for name in column("classes").tolist()]
    options = json.loads(column("options").tobytes().rstrip(b"\0"))
    synthetic, split = column("images/synthetic"), column("images/split")
    count, made = len(synthetic), int(synthetic.sum())
    size = next((name for limit, name in _SIZES if count < limit), _LARGER)
    train, test = (int((~synthetic & (split == which)).sum()) for which in (0, 1))
    held = {
        "real images": f"{count - made:,} ({train:,} for training, {test:,} for test)",
        "synthetic images": f"{made:,}",
        "candidates": f"{len(column('candidates/source')):,}",
        "classes": f"{len(classes):,}",
        "encoding": str(attributes["encoding"]),
        "made by": code(attributes["created_by"]),
        "generator": _generator(options, str(attributes["checkpoint_sha256"])),
    }
    chosen = {name: value for name, value in sorted(options.items()) if name not in _OF_THE_MACHINE and value != ""}
    shown = {code(name): code(json.dumps(value, ensure_ascii=False)) for name, value in chosen.items()}
    head = front_matter(licence, _TAGS, {"task_categories": ["image-classification"], "size_categories": [size]})
    return f"""\
{head}
# {code(title)}

Images for training a classifier, made with dagaug (DA-GAN): a generator redraws each training image of a class in the
pose of other images. A classifier selects the results. Synthetic images are marked as such and name the images that
they were made from.

{table(held, ("content", "")).rstrip()}

## Use

{use}
## Classes

{names_in_short(classes)}

## Options

{table(shown, ("option", "value")).rstrip()}

## Licence and limits

The licence is `{licence}`. Synthetic images are made from the real ones, so the terms of the real images hold for them.
Synthetic images are no evidence of how an object looks: what no image of a class shows is guessed. Test images
are never sources or references.
"""


def _generator(options: Mapping[str, object], sha256: str) -> str:
    """The checkpoint that made the synthetic images: its name on the hub if it has one, and its hash."""
    name = Provenance.read(options).checkpoint_hub
    return ", ".join([*([code(name)] if name else []), f"SHA-256 {code(sha256)}" if sha256 else "none"])
