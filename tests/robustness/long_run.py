"""Long augmentation that is killed (SIGKILL) several times; the result must equal that of an uninterrupted run.

    python tests/robustness/long_run.py FOLDER

Writes birds, a training of two steps and an untrained judge into FOLDER. Exits with 0 if the files are valid and equal.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from dagaug.birds.dataset import write_flock
from dagaug.classifiers.backbones import network_for
from dagaug.classifiers.classifier import untrained
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shards import parts_folder

SPECIES = 20


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "dagaug", *map(str, words)]


def prepare(folder: Path, images: int, size: int) -> None:
    """Write data, checkpoint and judge."""
    if not (folder / "birds").exists():
        write_flock(folder / "birds", species=SPECIES, per_class=images // SPECIES, test_per_class=2, size=64)
    few = ("--per-class", 2, "--steps", 2, "--batch-size", 4, "--size", size, "--device", "cpu")
    subprocess.run(command("train", folder / "birds", "--out", folder / "run", *few, "--quiet"), check=True)
    classes = read_dataset(folder / "birds").classes
    torch.manual_seed(0)
    untrained(network_for("auto", size), classes, size=size).save(folder / "judge.safetensors")


def augment(folder: Path, out: Path, images: int, refs: int) -> list[str]:
    return command(
        "augment", folder / "birds", "--checkpoint", folder / "run", "--weights", folder / "judge.safetensors",
        "--per-class", images // SPECIES, "--refs", refs, "--min-confidence", 0, "--device", "cpu", "--out", out,
        "--quiet",
    )  # fmt: skip


def shards_of(out: Path) -> int:
    return len(list(parts_folder(out).glob("index-*.h5")))


def kill_at(folder: Path, out: Path, images: int, refs: int, shards: int) -> float:
    """Run until a number of shards is written, then kill the process."""
    started = time.monotonic()
    with subprocess.Popen(augment(folder, out, images, refs)) as process:
        while shards_of(out) < shards:
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself ({process.returncode}) before {shards} shards")
            time.sleep(0.01)
        process.kill()
    return time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000, help="training images")
    parser.add_argument("--refs", type=int, default=10, help="references of each; two candidates a reference")
    parser.add_argument("--size", type=int, default=64, help="side of the patches")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--no-straight", action="store_true", help="do not compare with a run that is left alone")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    prepare(given.folder, given.images, given.size)
    out, straight = given.folder / "killed.h5", given.folder / "straight.h5"
    for path in (out, straight):
        path.unlink(missing_ok=True)
    # 32 sources or 256 real images are a shard
    real = given.images + 2 * SPECIES
    total = -(-given.images // 32) + -(-real // 256)
    seconds = 0.0
    for kill in range(1, given.kills + 1):
        took = kill_at(given.folder, out, given.images, given.refs, total * kill // (given.kills + 1))
        seconds += took
        print(f"killed after {took:.0f} s with {shards_of(out)} of {total} shards finished", flush=True)
    started = time.monotonic()
    subprocess.run(augment(given.folder, out, given.images, given.refs), check=True)
    took = time.monotonic() - started
    seconds += took
    print(f"the same command went on and finished in {took:.0f} s; {seconds:.0f} s in all", flush=True)
    subprocess.run(command("show", out, "--verify"), check=True)
    with Store(out) as store:
        counts = len(store.candidates), int((~store.images.synthetic).sum())
    expected = (given.images * given.refs * 2, real)
    if counts != expected:
        print(f"{counts} candidates and real images instead of {expected}")
        return 1
    if not given.no_straight:
        started = time.monotonic()
        subprocess.run(augment(given.folder, straight, given.images, given.refs), check=True)
        print(f"a run that was left alone took {time.monotonic() - started:.0f} s", flush=True)
        if out.read_bytes() != straight.read_bytes():
            print("the files differ")
            return 1
        print(f"both files have the same {out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
