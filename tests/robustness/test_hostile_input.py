"""Hostile input: one clear line, nothing written outside the output, nothing executed."""

from __future__ import annotations

import csv
import os
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from making_runs import Output, dagaug, quick
from making_stores import header, shard

from dagaug.data.image_files import decode
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.runtime.errors import DataError, in_one_line

FEW = ("--steps", 1, "--size", 32, "--batch-size", 4, "--device", "cpu", "--precision", "32-true")
NAMES = ("../x", "<script>alert(1)</script>", "a" * 5000, "two\r\nlines\x1b[31m")


def one_line(output: Output) -> str:
    """The message of a command that failed; it must be one printable line."""
    assert (output.code, output.out) == (1, "")
    errors = output.err.splitlines()
    assert len(errors) == 1, output.err
    assert errors[0].isprintable()
    assert errors[0].startswith("dagaug: ")
    return errors[0].removeprefix("dagaug: ")


def write_table(root: Path, names: tuple[str, ...]) -> Path:
    """Four images of each class in a CSV, the last of them for the test."""
    root.mkdir()
    with (root / "list.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "split"))
        for number, name in enumerate(names):
            for copy in range(4):
                image = np.random.default_rng([number, copy]).integers(0, 256, (32, 32, 3), np.uint8)
                cv2.imwrite(str(root / f"{number}-{copy}.png"), cv2.GaussianBlur(image, (0, 0), 3))
                writer.writerow((f"{number}-{copy}.png", name, "test" if copy == 3 else "train"))
    return root


def files_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_hostile_class_names_work_and_no_file_is_written_elsewhere(tmp_path: Path) -> None:
    data, work = write_table(tmp_path / "data", NAMES), tmp_path / "work"
    work.mkdir()
    with quick() as patch:
        patch.chdir(work)
        for command in (
            ("train", data, "--out", "run", *FEW),
            ("augment", data, "--checkpoint", "run", "--refs", 1, "--folds", 1, "--min-confidence", 0, "--out", "a.h5"),
            ("show", "a.h5", "--out", "page.html"),
            ("export", "a.h5", "--out", "images"),
        ):
            done = dagaug(*command)
            assert done.code == 0, done.err
    with Store(work / "a.h5") as store:
        assert set(store.classes) == set(NAMES)
    assert "<script>alert" not in (work / "page.html").read_text(encoding="utf-8")
    assert files_below(tmp_path) == {f"data/{name}" for name in files_below(data)} | {
        f"work/{name}" for name in files_below(work)
    }
    beside_cache = {name.split("/")[0] for name in files_below(work) if not name.startswith("runs/.cache/")}
    assert beside_cache == {"run", "a.h5", "page.html", "page.png", "images"}
    assert not any("\n" in name or "\x1b" in name or ".." in name.split("/") for name in files_below(work))


@pytest.mark.parametrize("layout", ["cub", "csv"])
def test_a_class_name_with_a_nul_is_refused_when_the_lists_are_read(tmp_path: Path, layout: str) -> None:
    if layout == "csv":
        data = write_table(tmp_path / "data", ("wren", "tit"))
        text = (data / "list.csv").read_text().replace("tit", "t\0it")
        (data / "list.csv").write_text(text)
    else:
        data = tmp_path / "data"
        (data / "images").mkdir(parents=True)
        (data / "images.txt").write_text("1 a.png\n2 b.png\n")
        (data / "classes.txt").write_text("1 wren\n2 t\0it\n")
        (data / "image_class_labels.txt").write_text("1 1\n2 2\n")
    line = one_line(dagaug("train", data, *FEW))
    assert "NUL" in line


def test_terminal_control_characters_are_escaped() -> None:
    assert in_one_line("a\nb\x1b[2Jc\u202ed") == "a\\nb\\x1b[2Jc\\u202ed"
    assert in_one_line("Zaunkönig – 3 × 4") == "Zaunkönig – 3 × 4"


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "a/../../secret.png", "link.png", "x" * 5000, "\x1b]0;x\x07.png"]
)
@pytest.mark.parametrize("layout", ["cub", "csv"])
def test_a_path_outside_the_data_folder_is_refused(tmp_path: Path, path: str, layout: str) -> None:
    data = write_table(tmp_path / "data", ("wren", "tit"))
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((8, 8, 3), np.uint8))
    (data / "link.png").symlink_to(tmp_path / "secret.png")
    if layout == "csv":
        (data / "list.csv").write_text((data / "list.csv").read_text().replace("1-0.png", path))
    else:
        (data / "images").symlink_to(".")
        names = [path, *(f"{number}-{copy}.png" for number in (0, 1) for copy in range(4) if (number, copy) != (1, 0))]
        (data / "images.txt").write_text("".join(f"{row} {name}\n" for row, name in enumerate(names, 1)))
        (data / "classes.txt").write_text("1 wren\n2 tit\n")
        labels = [2, 1, 1, 1, 1, 2, 2, 2]
        (data / "image_class_labels.txt").write_text("".join(f"{row} {c}\n" for row, c in enumerate(labels, 1)))
        (data / "train_test_split.txt").write_text("".join(f"{row} {int(row not in (5, 8))}\n" for row in range(1, 9)))
        (data / "list.csv").unlink()
    if "secret" in path or path in ("/etc/passwd", "link.png"):
        assert "leaves the data folder" in one_line(dagaug("train", data, *FEW))
    else:  # only a strange name of a file that is not there
        with quick():
            done = dagaug("train", data, "--out", tmp_path / "run", *FEW)
        assert done.code == 0, done.err
        assert "skipped, 1 of" in done.err
        assert all(line.isprintable() for line in done.err.splitlines())


# ---- nothing is executed


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("protocol", ["plain", "torch"])
def test_a_pickle_is_never_executed(birds_folder: Path, birds_run: Path, tmp_path: Path, protocol: str) -> None:
    trace, out = tmp_path / "executed", tmp_path / "never.h5"
    data = tmp_path / "evil"
    if protocol == "plain":
        data.write_bytes(pickle.dumps(Evil(trace)))
    else:
        torch.save({"state_dict": Evil(trace)}, data)
    for suffix in (".safetensors", ".pth", ".h5", ".pt"):
        (tmp_path / f"evil{suffix}").write_bytes(data.read_bytes())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(data.read_bytes())
    augment = ("augment", birds_folder, "--refs", 1, "--out", out, "--device", "cpu", "--quiet")
    for command in (
        (*augment, "--checkpoint", tmp_path / "run"),
        (*augment, "--checkpoint", tmp_path / "evil.pth"),
        (*augment, "--checkpoint", birds_run, "--weights", tmp_path / "evil.pth"),
        (*augment, "--checkpoint", birds_run, "--weights", tmp_path / "evil.pt"),
        (*augment, "--checkpoint", birds_run, "--weights", tmp_path / "evil.safetensors"),
        ("show", tmp_path / "evil.h5"),
        ("export", tmp_path / "evil.h5", "--out", tmp_path / "never"),
        ("score", birds_folder, tmp_path / "evil.h5"),
        ("metrics", tmp_path / "evil.h5", birds_folder),
    ):
        assert "evil" in one_line(dagaug(*command)) or "model.safetensors" in one_line(dagaug(*command))
        assert not trace.exists()
        assert not out.exists()


# ---- pictures that claim to be huge


def png_of(width: int, height: int, pixels: bytes = b"\0") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    described = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", described) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    )


def test_an_image_of_more_than_100_megapixels_is_skipped_without_decoding(tmp_path: Path) -> None:
    data = write_table(tmp_path / "data", ("wren", "tit"))
    (data / "1-0.png").write_bytes(png_of(100_000, 100_000))
    with quick():
        done = dagaug("train", data, "--out", tmp_path / "run", *FEW)
    assert done.code == 0, done.err
    assert "1-0.png: 100000 × 100000 pixels are more than 100 megapixels; skipped, 1 of 6 so far" in done.err


def test_a_huge_compressed_text_chunk_is_not_copied(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    body = b"Comment\0\0" + bomb
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    plain = png_of(4, 4, bytes(4 * 13))
    (tmp_path / "bomb.png").write_bytes(plain[:33] + chunk + plain[33:])
    assert decode(tmp_path / "bomb.png").shape == (4, 4, 3)


# ---- verifying a file


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    with open_shard_folder(tmp_path / "a.h5", {}) as run:
        for index in range(3):
            run.write(index, shard(index))
        return run.merge(header(), 3)


def test_verify_says_what_it_checked(stored: Path) -> None:
    done = dagaug("show", stored, "--verify")
    assert done.code == 0, done.err
    assert (
        f"{stored} is intact: 14 images (6 real, 8 synthetic), 14 candidates, 2 classes, 6 files, 1 skipped" in done.out
    )
    assert "14 images decoded to their sizes" in done.out
    counts = dagaug("show", stored, "--verify", "--json").json
    assert (counts["images"], counts["decoded"], counts["candidates"]) == (14, 14, 14)
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]


def test_verify_names_the_file_and_the_row_that_is_wrong(stored: Path) -> None:
    with Store(stored) as store:
        seventh = store.encoded(7)
    stored.write_bytes(stored.read_bytes().replace(seventh, seventh[:-20] + bytes([seventh[-20] ^ 1]) + seventh[-19:]))
    line = one_line(dagaug("show", stored, "--verify"))
    assert line == f"{stored}: /images/data: image 7 is damaged (its hash differs)"


def test_verify_needs_a_file(tmp_path: Path) -> None:
    done = dagaug("show", tmp_path, "--verify")
    assert (done.code, done.err) == (
        2,
        f"dagaug: --verify: {tmp_path} is a folder; give the HDF5 file written by dagaug augment\n",
    )


def test_a_long_class_name_is_shortened_in_the_message(tmp_path: Path) -> None:
    data = write_table(tmp_path / "data", ("b" * 5000,))
    with pytest.raises(DataError) as caught:
        read_dataset(data)
    assert len(str(caught.value)) < 300 + len(str(data))
