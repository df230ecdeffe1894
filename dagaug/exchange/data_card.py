"""The data card (``README.md``) of an export or an HDF5 file: what it is, how it was made, licences, measured numbers.

It states only what the HDF5 file holds and what a score of the same file measured. Where something is not recorded, it
says so. For class folders it begins with tags for the Hugging Face hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath

import numpy as np

from dagaug.hdf5.provenance import Provenance
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import in_one_line

__all__ = ["DATA_CARD", "data_card"]

DATA_CARD = "README.md"
"""Name of the data card in an export's folder."""

_FRONT_MATTER = (
    "---", "task_categories:", "- image-classification", "tags:", "- synthetic", "- dagaug", "---", "",
)  # fmt: skip
_PATHS = ("class_map", "masks", "pairs", "source", "weights")  # options of which the card shows the last part only
_LOCAL = "local-dir:"  # before the folder of a network
_HIDDEN = (
    "data",
    "data_given",
    "checkpoint",
    "checkpoint_given",
    "checkpoint_hub",
    "masks_given",
    "licences",
)  # shown in other sections, or paths of the author's machine


def data_card(store: Store, rows: np.ndarray, to: str = "") -> str:
    """The text of the data card.

    Args:
        store: the HDF5 file.
        rows: its images that the card is about.
        to: the format of their export; empty for the file itself.
    """
    header = store.header
    known = header.provenance
    synthetic, test = store.images.synthetic[rows], store.images.split[rows] == 1
    labels = store.images.label[rows]
    kind = "images" if to in ("coco", "yolo") else "labelled images"
    name = _code(store.path.name)
    place = f"exported from `{name}` in the form `{to}`" if to else f"in `{name}`"
    counts = [
        f"{len(rows):,} {kind} of {len(np.unique(labels)):,} classes, {place}.",
        "",
        "| | training | test |",
        "|---|---|---|",
        *(
            f"| {name} | {int((chosen & ~test).sum()):,} | {int((chosen & test).sum()):,} |"
            for name, chosen in (("real images", ~synthetic), ("synthetic images", synthetic))
        ),
        "",
    ]
    lines = [
        *(_FRONT_MATTER if to == "imagefolder" else ()),
        f"# {_code(store.path.stem)}",
        "",
        *counts,
        *_origin(store, known, bool(synthetic.any())),
        *_how(header.created_by, header.seed, header.options),
        *_licences(header.checkpoint_sha256, known),
        *_numbers(store),
    ]
    return "\n".join(lines)


def _origin(store: Store, known: Provenance, synthetic: bool) -> list[str]:
    name = PurePath(known.data_given or known.data).name or PurePath(known.data).name
    lines = ["## Data", ""]
    if name:
        lines.append(f"The real images, and the sources of the synthetic ones, are from the data set `{_code(name)}`.")
    else:
        lines.append("The file does not record the data set that its images are from.")
    if synthetic:
        lines += _of_synthetic(store, known)
    lines.append("The licence of the images is that of the data set; the file does not record it.")
    return [*lines, ""]


def _of_synthetic(store: Store, known: Provenance) -> list[str]:
    """What a synthetic image is; nothing for translated folders, which have no candidates."""
    if not store.length("candidates/source"):
        return []
    variants = {store.header.variants[row] for row in np.unique(store.images.variant[store.images.synthetic])}
    lines = []
    if variants - {"cutout"}:
        lines.append("A morph shows the object of its source, whose label it has, in the pose of its reference.")
    if "cutout" in variants:
        lines.append("A cut-out (variant `cutout`) shows the unchanged object of its source on another background.")
    drawn = known.pairs is None
    lines.append(
        "Sources and references are training images." if drawn else "Sources and references were given in a table."
    )
    return lines


def _how(created_by: str, seed: int, options: Mapping[str, object]) -> list[str]:
    shown = {
        name: _without_folder(value, name in _PATHS) if isinstance(value, str) else value
        for name, value in sorted(options.items())
        if name not in _HIDDEN
    }
    text = json.dumps(shown, indent=1, ensure_ascii=False)
    made = f"Written by {in_one_line(created_by)} with the seed {seed} and these options:"
    return ["## How it was made", "", made, "", "```json", *map(in_one_line, text.splitlines()), "```", ""]


def _without_folder(value: str, is_path: bool = False) -> str:
    """A path, or the name of a network in a folder, with its last part alone."""
    prefix = _LOCAL if value.startswith(_LOCAL) else ""
    return prefix + PurePath(value.removeprefix(prefix)).name if prefix or is_path else value


def _licences(checkpoint_sha256: str, known: Provenance) -> list[str]:
    lines = ["## Weights", ""]
    if checkpoint_sha256:
        named = f"are `{_code(known.checkpoint_hub)}` on the hub, with" if known.checkpoint_hub else "have"
        lines.append(f"The generator's weights {named} the SHA-256 `{checkpoint_sha256}`.")
    if known.licences:
        lines += ["", "| pretrained weights | licence |", "|---|---|"]
        pairs = sorted((_without_folder(name), licence) for name, licence in known.licences.items())
        lines += [f"| {_cell(name)} | {_cell(licence)} |" for name, licence in pairs]
    else:
        lines.append("The file does not record pretrained weights or their licences.")
    return [*lines, ""]


def _numbers(store: Store) -> list[str]:
    """The newest score of exactly this file that lies beside it."""
    found = _newest_score(store)
    if found is None:
        return []
    path, score = found
    lines = [f"## Measured with `dagaug score` (`{_code(path.name)}`)", ""]
    lines += [f"- {in_one_line(sentence)}" for sentence in _texts(score.get("sentences"))]
    notes = [f"- {in_one_line(note)}" for note in _texts(score.get("notes"))]
    return [*lines, *(["", "Notes of the score:", "", *notes] if notes else []), ""]


def _newest_score(store: Store) -> tuple[Path, Mapping[str, object]] | None:
    content = store.column("content_sha256").tobytes().hex()
    files = [path for path in store.path.parent.glob("*score*.json") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True):
        try:
            score = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # not a score
        options = score.get("options") if isinstance(score, dict) else None
        if isinstance(options, dict) and options.get("store_content_sha256") == content:
            return path, score
    return None


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _code(text: str) -> str:
    return in_one_line(text).replace("`", "'")


def _cell(text: str) -> str:
    return in_one_line(text).replace("|", "\\|").replace("<", "&lt;")
