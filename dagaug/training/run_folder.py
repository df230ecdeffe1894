"""The folder of a training run: identity, lock, options, metrics log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dagaug.data.dataset import Dataset, Domains
from dagaug.model import checkpoint
from dagaug.runtime.errors import OutputExistsError
from dagaug.runtime.files import locked
from dagaug.training.options import TrainOptions

__all__ = [
    "append_metrics",
    "claim_run",
    "cut_metrics",
    "identity_of",
    "lock_run",
    "removed_if_empty",
    "run_folder",
    "write_options",
]


def identity_of(options: TrainOptions, data: Dataset | Domains) -> dict[str, Any]:
    """What makes two runs the same run: options and the lists of the data."""
    if isinstance(data, Dataset):
        lists: Any = [[str(s.path), s.label, s.split] for s in data.samples] + [list(data.classes)]
    else:
        lists = [[str(path.name) for path in paths] for paths in (data.source, data.target)]
    digest = hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]
    known = options.resolved().model_dump(mode="json")
    if not options.own_pixels:  # runs that were begun before there was this option go on
        del known["own_pixels"]
    return {**known, "data": digest}


def run_folder(options: TrainOptions, data: Dataset | Domains, name: str, root: Path = Path("runs")) -> Path:
    """The folder of a run that is not given one: named after data, preset and everything that decides its result."""
    digest = hashlib.sha256(json.dumps(identity_of(options, data), sort_keys=True).encode()).hexdigest()[:6]
    return root / f"{name}-{options.preset}-{digest}"


def claim_run(run: Path, identity: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Make the run's folder, or see that it belongs to the same run; returns what is known of it."""
    options = run / "options.json"
    if options.exists() and not overwrite:
        try:
            known = json.loads(options.read_text(encoding="utf-8"))
            before = dict(known["identity"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputExistsError(f"{options}: not a readable run; choose another --out, or --overwrite") from error
        for name in sorted(set(before) | set(identity)):
            if before.get(name) != identity.get(name):
                raise OutputExistsError(
                    f"{run}: holds a run with {name} {before.get(name)}, now it is {identity.get(name)}; "
                    "choose another --out, or --overwrite"
                )
        return known
    if (run / checkpoint.MODEL_FILE).exists() and not overwrite:
        raise OutputExistsError(f"{run}: holds a model that no training of dagaug left here; choose another --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputExistsError(f"{run}: cannot be written ({error.strerror}); choose another --out") from error
    return {"identity": identity}


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Keep other trainings away from a run's folder."""
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        with locked(run.with_name(f".{run.name}.lock"), run):
            yield
    except OSError as error:
        raise OutputExistsError(f"{run}: cannot be written ({error.strerror}); choose another --out") from error


@contextmanager
def removed_if_empty(run: Path) -> Iterator[None]:
    """Leave no empty folder behind where a training cannot begin."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # there is something in it
            run.rmdir()
        raise


def append_metrics(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def cut_metrics(path: Path, done: int) -> None:
    """Drop what a killed run logged after its last saved step."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    path.write_text("".join(kept), encoding="utf-8")


def write_options(run: Path, known: Mapping[str, Any]) -> None:
    temporary = run / "options.json.tmp"
    temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    temporary.replace(run / "options.json")
