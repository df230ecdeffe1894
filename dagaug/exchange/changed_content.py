"""Content of the HDF5 file of an export whose folder was changed by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from dagaug.exchange.folder_changes import FolderChanges
from dagaug.exchange.non_image_content import Columns, Manifest, select_images

__all__ = ["REMOVED", "ChangedContent", "change_content"]

REMOVED = "removed from the export"
"""Verdict of candidates whose images were deleted from the folder, or are left out."""

_RECORD = "imported"  # entry of /options: numbers of changed images


@dataclass(frozen=True)
class ChangedContent:
    """The datasets of a changed export.

    Attributes:
        columns: as those of a manifest; the added images come last.
        relabelled: exported images with another class.
        resplit: exported images in the other split.
        changed_real: real ones of both.
        outdated: synthetic images that keep the former class of their relabelled source.
    """

    columns: Columns
    relabelled: int
    resplit: int
    changed_real: int
    outdated: int


def change_content(manifest: Manifest, changes: FolderChanges) -> ChangedContent:
    """Apply changes of the folder to what the manifest says; without any, the columns stay the same.

    A relabelled real image gives its class to its file, too. A relabelled synthetic image and its candidate get the
    confidence NaN, because the classifier was asked about another class.
    """
    before, present = manifest.columns, changes.present
    columns = dict(before)
    columns["images/path"] = np.array([os.fsencode(path) for path in changes.paths])
    relabelled = present & (changes.label != before["images/label"])
    resplit = present & (changes.split != before["images/split"])
    if relabelled.any():
        _relabel(columns, changes, relabelled)
    if resplit.any():
        columns["images/split"] = changes.split.astype(before["images/split"].dtype)
        _change_files(columns, "files_split", columns["images/split"], resplit)
    outdated = present & columns["images/synthetic"] & _has_relabelled_source(columns, before)
    if not present.all():
        columns = _without_missing(columns, present)
    if changes.added:
        columns = _with_added(columns, changes)
    counts = {"relabelled": int(relabelled.sum()), "resplit": int(resplit.sum())}
    recorded = {**counts, "added": len(changes.added)}
    if any(recorded.values()):
        columns["options"] = _record(columns["options"], recorded)
    changed_real = int(((relabelled | resplit) & ~before["images/synthetic"]).sum())
    return ChangedContent(columns, **counts, changed_real=changed_real, outdated=int(outdated.sum()))


def _relabel(columns: Columns, changes: FolderChanges, rows: Bool[np.ndarray, " N"]) -> None:
    columns["images/label"] = changes.label.astype(columns["images/label"].dtype)
    _change_files(columns, "files_label", columns["images/label"], rows)
    judged = np.flatnonzero(rows & columns["images/synthetic"])
    candidates = columns["images/candidate"][judged]
    linked = candidates >= 0
    for name in ("images/confidence", "candidates/confidence", "candidates/label"):
        columns[name] = columns[name].copy()
    columns["images/confidence"][judged] = np.nan
    columns["candidates/confidence"][candidates[linked]] = np.nan
    columns["candidates/label"][candidates[linked]] = columns["images/label"][judged[linked]]


def _change_files(columns: Columns, name: str, values: np.ndarray, rows: Bool[np.ndarray, " N"]) -> None:
    """Give the files of changed real images the values of these images."""
    real = np.flatnonzero(rows & ~columns["images/synthetic"])
    columns[name] = columns[name].copy()
    columns[name][columns["images/source"][real]] = values[real]


def _has_relabelled_source(columns: Columns, before: Columns) -> Bool[np.ndarray, " N"]:
    """Whether the source of an image has another class than before, and than the image."""
    source, label = columns["images/source"], columns["files_label"]
    changed = label != before["files_label"]
    return changed[source] & (label[source] != columns["images/label"])


def _without_missing(columns: Columns, present: Bool[np.ndarray, " N"]) -> Columns:
    """The columns without the missing images; their candidates get the verdict :data:`REMOVED`."""
    result = select_images(columns, present)
    missing = (columns["candidates/image"] >= 0) & (result["candidates/image"] < 0)
    if missing.any():
        names = result["verdicts"].tolist()
        if REMOVED.encode() not in names:
            names.append(REMOVED.encode())
        verdict = result["candidates/verdict"].copy()
        verdict[missing] = names.index(REMOVED.encode())
        result |= {"verdicts": np.array(names), "candidates/verdict": verdict}
    return result


def _with_added(columns: Columns, changes: FolderChanges) -> Columns:
    """The columns with the added images as real ones, each with a file of its own."""
    added, files = changes.added, columns["files"]
    count = len(added)
    values: dict[str, object] = {
        "height": [image.height for image in added],
        "width": [image.width for image in added],
        "label": [image.label for image in added],
        "split": [image.split for image in added],
        "synthetic": [False] * count,
        "source": np.arange(len(files), len(files) + count),
        "reference": [-1] * count,
        "variant": [0] * count,
        "confidence": [np.nan] * count,
        "predicted": [-1] * count,
        "candidate": [-1] * count,
        "sha256": [list(image.sha256) for image in added],
        "path": [os.fsencode(image.path) for image in added],
        "start": [0] * count,
        "size": [image.size for image in added],
    }
    result = dict(columns)
    for name, rows in values.items():
        column = columns[f"images/{name}"]
        result[f"images/{name}"] = np.concatenate([column, _as_rows(rows, column)])
    if "objects/box" in columns:  # the objects of the added images are unknown
        ends = columns["objects/mask_offset"]
        result["objects/box"] = np.concatenate([columns["objects/box"], np.full((count, 4), np.nan, "<f4")])
        result["objects/mask_offset"] = np.concatenate([ends, np.repeat(ends[-1:], count)])
    taken = set(files.tolist())
    names = [_unused(os.fsencode(image.path), taken) for image in added]
    for name, rows in (("files", names), ("files_label", values["label"]), ("files_split", values["split"])):
        result[name] = np.concatenate([columns[name], _as_rows(rows, columns[name])])
    return result


def _as_rows(rows: object, column: np.ndarray) -> np.ndarray:
    """Rows of the column's type; texts may be longer than those of the column."""
    return np.array(rows) if column.dtype.kind == "S" else np.array(rows, column.dtype)


def _unused(name: bytes, taken: set[bytes]) -> bytes:
    """The name, or the name after a number, so that no file of the data folder is meant; it is taken then."""
    result, number = name, 1
    while result in taken:
        number += 1
        result = b"added-%d/%s" % (number, name)
    taken.add(result)
    return result


def _record(options: np.ndarray, counts: Mapping[str, int]) -> np.ndarray:
    """``/options`` with the numbers of changed images, added to those of earlier imports."""
    known = json.loads(options.tobytes().rstrip(b"\0"))
    earlier = known.get(_RECORD) if isinstance(known.get(_RECORD), dict) else {}
    known[_RECORD] = {name: count + int(earlier.get(name, 0)) for name, count in counts.items()}
    text = json.dumps(known, sort_keys=True, allow_nan=False).encode()
    return np.array(text, f"S{len(text)}")
