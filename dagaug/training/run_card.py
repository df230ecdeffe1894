"""Card of a run: a README.md in its folder with data, options, measures, weights beneath it, and limits.

It is rendered from the other files of the folder alone, so the same run always has the same card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from dagaug.hub.card_format import (
    CARD_FILE,
    UNKNOWN_LICENCE,
    code,
    front_matter,
    names_in_short,
    table,
)
from dagaug.hub.names import is_hub_name
from dagaug.model.checkpoint import MODEL_FILE
from dagaug.model.trained_model import GENERAL, SCRATCH, ModelCard
from dagaug.runtime.errors import CheckpointError
from dagaug.runtime.files import write_atomically
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.unedited_texts import is_unedited, write_unless_edited
from dagaug.training.run_folder import METRICS_FILE, OPTIONS_FILE

__all__ = ["MEASURES_FILE", "remove_run_card", "render_run_card", "write_measures", "write_run_card"]

MEASURES_FILE = "measures.json"
"""Name of the file with what was measured after the training: names and numbers; empty if nothing could be."""

_TAGS = ("dagaug", "gan", "image-to-image", "data-augmentation", "fine-grained")
_NOT_SHOWN = {"data", "versions", "masks"}  # hashes, and what has its own table
_FILES = {"weights", "feature_weights"}

_GENERAL_LICENCE = "Apache-2.0; part of dagaug, trained only on procedural creatures"

_REFERENCE = """\
A generator for data augmentation: it redraws a training image in the pose of another image (DA-GAN). It is made for the
classes below, and serves to enlarge the training set of a classifier of these classes.

```sh
dagaug augment DATA --checkpoint {where} --refs 10
```
"""
_PAPER = """\
A generator that translates images from one domain to another (DA-GAN).

```sh
dagaug translate FOLDER --out TRANSLATED --checkpoint {where}
```
"""

_LIMITS = """\
- It does not show what no image of a class shows: hidden sides are guessed.
- Without bounding boxes or masks it does not find objects on busy backgrounds.
- Whether its images help a classifier depends on data and classifier: measure it with `dagaug score`.
- The training images determine what it draws; their terms may limit the use of the model and of its images.
"""


def render_run_card(run: Path, *, licence: str = UNKNOWN_LICENCE, where: str = "FOLDER") -> str:
    """Text of the card of a run.

    Args:
        run: folder of a finished training, or of a model without training.
        licence: the hub's identifier of the model's licence.
        where: the run's name in the examples.

    Raises:
        CheckpointError: the folder does not describe its model.
    """
    file = (run / MODEL_FILE).with_suffix(".json")
    try:
        model = ModelCard.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{file}: missing or not the description of a model; train again") from error
    known = _read_object(run / OPTIONS_FILE)
    identity = known.get("identity")
    options = identity if isinstance(identity, dict) else {}
    versions = options.get("versions")
    use = (_REFERENCE if model.mode == "reference" else _PAPER).format(where=where)
    parts = [
        front_matter(licence, _TAGS, {"library_name": "dagaug", "pipeline_tag": "image-to-image"}),
        f"# DA-GAN for {code(model.data)}\n",
        use,
        "## Data\n\n" + table(_data(model, known), ("data", "")),
        f"Classes: {names_in_short(model.classes)}\n" if model.classes else "",
        "## Measures\n\n" + _measures(run),
        "## Options\n\n" + table(_options(model, options), ("option", "value")),
        "## Weights that it rests on\n\n" + table(_weights(model, options), ("weights", "licence")),
        f"## Limits\n\n{_LIMITS}",
        f"Made with {', '.join(f'{name} {version}' for name, version in versions.items())}.\n"
        if isinstance(versions, dict)
        else "",
    ]
    return "\n".join(part for part in parts if part)


def write_run_card(run: Path, progress: Progress = SILENT) -> None:
    """Write the card of a finished run; a README.md that a person wrote or changed is kept, with a note.

    Raises:
        CheckpointError: the folder does not describe its model, or cannot be written.
    """
    try:
        if not write_unless_edited(run / CARD_FILE, render_run_card(run)):
            progress.say(f"{run / CARD_FILE}: was written or changed by hand; it is kept, and no card is written")
    except OSError as error:
        raise CheckpointError(f"{run / CARD_FILE}: cannot be written ({error.strerror})") from error


def remove_run_card(run: Path) -> None:
    """Remove the card and the measures of a run that is replaced, but no card that a person wrote or changed."""
    (run / MEASURES_FILE).unlink(missing_ok=True)
    card = run / CARD_FILE
    if card.is_file() and is_unedited(card.read_text(encoding="utf-8", errors="replace")):
        card.unlink()


def write_measures(run: Path, measures: Mapping[str, float], progress: Progress = SILENT) -> None:
    """Keep what was measured after the training, and write the card anew.

    Raises:
        CheckpointError: see :func:`write_run_card`.
    """
    try:
        write_atomically(run / MEASURES_FILE, (json.dumps(dict(measures), indent=2) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"{run / MEASURES_FILE}: cannot be written ({error.strerror})") from error
    write_run_card(run, progress)


def _read_object(file: Path) -> dict[str, object]:
    """The JSON object in a file; empty if there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _data(model: ModelCard, known: Mapping[str, object]) -> dict[str, str]:
    images = known.get("images")
    rows = {"name": code(model.data), "classes": f"{len(model.classes):,}"}
    if isinstance(images, int):
        rows["training images"] = f"{images:,}"
    if model.per_class is not None:
        rows["training images of a class"] = f"{model.per_class:,} at most"
    rows["split"] = "of the data set" if model.split_seed is None else f"drawn with seed {model.split_seed}"
    return rows | {"patches": f"{model.framing.size} × {model.framing.size} px"}


def _measures(run: Path) -> str:
    """What was measured after the training, and the last mean losses."""
    rows = {name: f"{value:.3g}" for name, value in _numbers(_read_object(run / MEASURES_FILE)).items()}
    lines = _text(run / METRICS_FILE).splitlines()
    try:
        last = json.loads(lines[-1]) if lines else {}
    except ValueError:
        last = {}
    losses = _numbers(last if isinstance(last, dict) else {})
    rows |= {f"loss {code(name)}, last mean": f"{value:.3g}" for name, value in losses.items() if name != "step"}
    return table(rows, ("measure", "value")) if rows else "Nothing was measured.\n"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _options(model: ModelCard, options: Mapping[str, object]) -> dict[str, str]:
    """The options of the training; of a path only the last name, which tells nothing of the machine."""
    rows: dict[str, str] = {}
    for name, value in {"steps": model.steps, **options, "own_pixels": model.own_pixels}.items():
        if name in _NOT_SHOWN or value is None or value in ("", []):
            continue
        is_path = name in _FILES or (name == "start" and not is_hub_name(str(value)))
        shown = Path(str(value)).name if is_path else value
        rows[code(name)] = code(shown if isinstance(shown, str) else json.dumps(shown))
    return rows | {code("steps"): code(model.steps)}


def _weights(model: ModelCard, options: Mapping[str, object]) -> dict[str, str]:
    """Pretrained weights and their licences."""
    rows: dict[str, str] = {}
    if model.features is not None:
        features = model.features
        source = f", file {code(Path(features.weights).name)}" if features.weights else ""
        sha256 = code(features.weights_sha256[:16])
        rows[f"frozen network {code(features.name)}{source}, SHA-256 {sha256}; not included"] = code(features.licence)
    start = options.get("start")
    if start == GENERAL:
        rows["start: the weights `general` of dagaug"] = _GENERAL_LICENCE
    elif isinstance(start, str) and start != SCRATCH:
        rows[f"start: {code(start if is_hub_name(start) else Path(start).name)}"] = "see the card of that model"
    if options.get("weights"):
        rows[f"distance {code(options.get('distance'))}, file {code(Path(str(options['weights'])).name)}"] = "unknown"
    return rows or {"none; all weights began as random numbers": "–"}
