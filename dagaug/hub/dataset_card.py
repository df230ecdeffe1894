"""Cards of repositories of data: the data card of an HDF5 file or an export, with the hub's tags and how to use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dagaug.exchange.data_card import DATA_CARD, data_card
from dagaug.exchange.non_image_content import read_manifest
from dagaug.hdf5.reader import Store
from dagaug.hub.card_format import code, front_matter
from dagaug.runtime.unedited_texts import without_stamp

__all__ = ["export_card", "file_card"]

_TAGS = ("dagaug", "data-augmentation", "synthetic", "fine-grained")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = "1M<n<10M"

_USE_OF_FILE = """
## Use

Images of the training split enlarge the training set of a classifier; synthetic ones are marked as such.

```sh
dagaug score DATA {name}     # does it help? DATA is the folder of the real images
dagaug show {name}           # a page and a contact sheet
dagaug export {name} --out FOLDER --to imagefolder
```
"""

_USE_OF_EXPORT = """
## Use

The folder is in a form that `dagaug export` writes for other tools. With its hidden file `.dagaug-export` it becomes an
HDF5 file again: `dagaug import FOLDER --out FILE.h5`.
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
        text = data_card(store, np.arange(len(store)))
        return _head(licence, len(store)) + text + _USE_OF_FILE.format(name=f"hf-hub:{repository}/{file.name}")


def export_card(folder: Path, licence: str) -> str:
    """The card of a folder that ``dagaug export`` wrote: its own data card, or a short one if that was removed.

    Raises:
        StoreError: the folder's manifest cannot be read.
    """
    manifest, card = read_manifest(folder), folder / DATA_CARD
    text = without_stamp(card.read_text(encoding="utf-8")) if card.is_file() else f"# {code(folder.resolve().name)}\n"
    body = text.split("---\n", 2)[2].lstrip("\n") if text.startswith("---\n") else text
    return _head(licence, len(manifest)) + body + _USE_OF_EXPORT


def _head(licence: str, images: int) -> str:
    size = next((name for limit, name in _SIZES if images < limit), _LARGER)
    others: dict[str, str | list[str]] = {"task_categories": ["image-classification"], "size_categories": [size]}
    return front_matter(licence, _TAGS, others) + "\n"
