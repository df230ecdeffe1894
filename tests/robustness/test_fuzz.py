"""Readers of random and damaged input: they return a result or raise one of dagaug's errors.

With ``--runslow`` each tries 3,000 examples, or as many as the environment's FUZZ_EXAMPLES says.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making_stores import header, shard

from dagaug.augment.morph_plan import pairs_from_csv
from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.data.dataset_records import Sample
from dagaug.data.domains_layout import read_domains
from dagaug.data.image_files import decode_bytes
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import finished_shards
from dagaug.hdf5.verify import verify
from dagaug.model import checkpoint
from dagaug.model.trained_model import load_model
from dagaug.runtime.errors import DagaugError, ImageError
from dagaug.score.run_log import RunLog

SHORT, LONG = 15, int(os.environ.get("FUZZ_EXAMPLES", "3000"))
fuzzed = [
    pytest.param(SHORT, id="short"),
    pytest.param(LONG, id="long", marks=pytest.mark.slow),
]
QUIET = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)


def survives(read: Callable[[], object]) -> None:
    """What is read is fine, and so is one line of ours."""
    with suppress(DagaugError):
        read()


def fuzz(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    given(strategy)(settings(max_examples=examples, deadline=None, suppress_health_check=QUIET)(check))()


# ---- what is drawn


def mutated(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file with pieces overwritten, put in, taken out, or its end missing."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> bytes:
        content = bytearray(whole)
        for _ in range(draw(st.integers(0, 5))):
            at = draw(st.integers(0, len(content)))
            piece = draw(st.one_of(st.binary(max_size=16), st.sampled_from(NUMBERS)))
            content[at : at + draw(st.sampled_from((0, 1, len(piece))))] = piece
        return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)

    return draw_one()


NUMBERS = [struct.pack(kind, number) for kind in ("<q", ">q", "<i", ">i") for number in (-1, 0, 1, 2**31 - 1, 1 << 20)]

_WORDS = (
    "1", "2", "3", "0", "-1", "999999999999999999999", "1.5", "nan", "inf", "a.png", "../a.png", "b/c.jpg", "wren",
    "train", "test", "path", "label", "split", "source", "reference", '"', "'", "\0", "²", "\ufeff", "", "\r",
    "x" * 300,
)  # fmt: skip
WORDS = st.one_of(st.sampled_from(_WORDS), st.text(max_size=12))


def table(separator: str) -> st.SearchStrategy[bytes]:
    """Lines of words, now and then with bytes that are no text."""
    lines = st.lists(st.lists(WORDS, max_size=6).map(separator.join), max_size=8).map("\n".join)
    return st.one_of(lines.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=200))


# ---- images


@pytest.mark.parametrize("examples", fuzzed)
def test_decoding_any_bytes(examples: int) -> None:
    signatures = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP", b"BM", b"II*\0", b"MM\0*", b"II+\0"]
    seeds = [*shard(0).encoded, *shard(1, "jpeg").encoded]

    def check(data: bytes) -> None:
        try:
            image = decode_bytes(data, "x")
        except ImageError:
            return
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)

    start = st.tuples(st.sampled_from(signatures), st.binary(max_size=200)).map(b"".join)
    fuzz(examples, st.one_of(start, *map(mutated, seeds)), check)


# ---- lists


@pytest.mark.parametrize("examples", fuzzed)
def test_lists_of_cub(tmp_path: Path, examples: int) -> None:
    names = (
        "images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt",
        "parts/part_locs.txt",
    )  # fmt: skip
    good = {
        "images.txt": "1 a/1.png\n2 a/2.png\n3 b/3.png\n4 b/4.png\n", "classes.txt": "1 a\n2 b\n",
        "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n", "train_test_split.txt": "1 1\n2 0\n3 1\n4 0\n",
        "bounding_boxes.txt": "1 0 0 4 4\n", "parts/part_locs.txt": "1 1 2 2 1\n",
    }  # fmt: skip
    (tmp_path / "parts").mkdir()

    def check(drawn: tuple[str, bytes]) -> None:
        for name, text in good.items():
            (tmp_path / name).write_text(text)
        (tmp_path / drawn[0]).write_bytes(drawn[1])
        survives(lambda: read_dataset(tmp_path, layout="cub"))

    lists = st.one_of(
        st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), table(" "))),
        st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), mutated(good[name].encode()))),
    )
    fuzz(examples, lists, check)


@pytest.mark.parametrize("examples", fuzzed)
def test_tables_of_images(tmp_path: Path, examples: int) -> None:
    good = b"path,label,split\na.png,wren,train\nb.png,tit,train\nc.png,tit,test\n"

    def check(content: bytes) -> None:
        (tmp_path / "list.csv").write_bytes(content)
        survives(lambda: read_dataset(tmp_path / "list.csv"))
        survives(lambda: read_dataset(tmp_path))
        survives(lambda: read_domains(tmp_path))

    fuzz(examples, st.one_of(table(","), mutated(good)), check)


@pytest.mark.parametrize("examples", fuzzed)
def test_tables_of_pairs(tmp_path: Path, examples: int) -> None:
    samples = [Sample(Path(f"birds/{name}.png"), 0, "train") for name in "abc"]
    good = b"source,reference\na.png,b.png\nb.png,c.png\n"

    def check(content: bytes) -> None:
        (tmp_path / "pairs.csv").write_bytes(content)
        survives(lambda: pairs_from_csv(tmp_path / "pairs.csv", samples))

    fuzz(examples, st.one_of(table(","), mutated(good)), check)


# ---- checkpoints

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda part: st.one_of(st.lists(part, max_size=4), st.dictionaries(st.text(max_size=8), part, max_size=4)),
    max_leaves=8,
)


@pytest.mark.parametrize("examples", fuzzed)
def test_damaged_checkpoints(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(
        path, {"w": torch.arange(6.0), "n": torch.zeros((), dtype=torch.int64)}, {"card": {"mode": "paper"}}
    )

    def check(content: bytes) -> None:
        path.write_bytes(content)
        for read in (checkpoint.load, load_model, Classifier.load, CrossFitted.load):
            survives(lambda read=read: read(path))  # type: ignore[misc]

    fuzz(examples, mutated(path.read_bytes()), check)


@pytest.mark.parametrize("examples", fuzzed)
def test_checkpoints_with_any_header(birds_run: Path, tmp_path: Path, examples: int) -> None:
    tensors, good = checkpoint.load(birds_run / "model.safetensors")
    few = dict(list(tensors.items())[:2])
    path = tmp_path / "x.safetensors"

    def check(drawn: tuple[str, object]) -> None:
        card = {**good["card"], drawn[0]: drawn[1]}
        checkpoint.save(path, few, {"kind": "model", "card": card})
        survives(lambda: load_model(path))
        checkpoint.save(path, few, {"format": drawn[1], "classifiers": drawn[1], "identity": "", "accuracy": drawn[1]})
        survives(lambda: CrossFitted.load(path))

    huge = st.sampled_from([1 << 40, -1, 0, math.inf, math.nan, 1e300, "reference", "paper"])
    fuzz(examples, st.tuples(st.sampled_from(sorted(good["card"])), st.one_of(JSON, huge)), check)


def test_a_very_deeply_nested_header_is_refused(tmp_path: Path) -> None:
    deep = "[" * 100_000
    head = json.dumps({"__metadata__": {"dagaug": deep}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    for read in (checkpoint.load, load_model, Classifier.load):
        survives(lambda read=read: read(path))  # type: ignore[misc]


# ---- results


@pytest.mark.parametrize("examples", fuzzed)
def test_damaged_files_and_shards(tmp_path: Path, examples: int) -> None:
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        run.write(0, shard(0))
        part = (tmp_path / "x.h5.parts" / "index-00000.h5").read_bytes()
        run.merge(header(), 1)
    whole = (tmp_path / "x.h5").read_bytes()

    def check(drawn: tuple[bool, bytes]) -> None:
        is_part, content = drawn
        if is_part:
            (tmp_path / "index-00000.h5").write_bytes(content)
            survives(lambda: finished_shards(tmp_path))
        else:
            (tmp_path / "x.h5").write_bytes(content)
            survives(lambda: verify(tmp_path / "x.h5"))

    both = st.one_of(st.tuples(st.just(False), mutated(whole)), st.tuples(st.just(True), mutated(part)))
    fuzz(examples, both, check)


@pytest.mark.parametrize("examples", fuzzed)
def test_damaged_ledgers(tmp_path: Path, examples: int) -> None:
    good = b'{"identity": "x", "arm": "real", "seed": 0, "accuracy": 0.5, "calibration_error": 0.1, "predictions": "", '
    good += b'"seconds": 1.0}\n'

    def check(content: bytes) -> None:
        (tmp_path / "runs.jsonl").write_bytes(content)
        survives(lambda: RunLog(tmp_path / "runs.jsonl", {}).find("x", "real", 0))

    fuzz(examples, st.one_of(mutated(good), JSON.map(lambda value: json.dumps(value).encode())), check)
