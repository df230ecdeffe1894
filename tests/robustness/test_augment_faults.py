"""``dagaug augment`` stopped by kills, signals, full disks, lost files; the same command ends with the same bytes."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from worlds import SHARDS, World

from dagaug.hdf5.shards import parts_folder
from dagaug.hdf5.verify import verify

pytestmark = pytest.mark.slow

pytest.importorskip("resource")


def stopping_before(shard: int) -> str:
    """Code that makes a command stop itself (SIGSTOP) before it writes a shard."""
    return f"""
import os, signal
from dagaug.hdf5.shard_folder import ShardFolder
write = ShardFolder.write
def stopped(self, index, content):
    if index == {shard}:
        os.kill(os.getpid(), signal.SIGSTOP)
    write(self, index, content)
ShardFolder.write = stopped
"""


def check_equal(root: Path, straight: bytes, out: str = "a.h5") -> None:
    """Check that the file equals that of an undisturbed run and that no temporary files are left."""
    assert (root / out).read_bytes() == straight
    assert not parts_folder(root / out).exists()
    verify(root / out)


# ---- killed and stopped


@pytest.mark.parametrize("number", range(20))
def test_a_run_killed_at_a_random_moment_is_completed_by_the_same_command(
    world: World, straight: bytes, number: int
) -> None:
    out = world.root / "a.h5"
    if number == 0:
        started = time.monotonic()
        assert world.run() == (0, [])
        world_seconds.append(time.monotonic() - started)
        out.unlink()
    process = world.start()
    time.sleep(random.Random(number).uniform(0, (world_seconds or [1.5])[0]))
    process.send(signal.SIGKILL)
    ended = process.wait()
    assert ended in (-signal.SIGKILL, 0)  # it may have ended before
    assert not out.exists() or out.read_bytes() == straight
    if not out.exists():
        assert world.run() == (0, [])
    check_equal(world.root, straight)


KILLING_BEFORE_THE_FOLDER_GOES = """
import os, signal
from dagaug.hdf5.shard_folder import ShardFolder
ShardFolder._remove = lambda self: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("merge", ["copy", "virtual"])
def test_after_a_kill_after_the_final_rename_the_same_command_removes_the_shards(
    world: World, straight: bytes, merge: str
) -> None:
    process = world.start("--merge", merge, prelude=KILLING_BEFORE_THE_FOLDER_GOES)
    assert process.wait() == -signal.SIGKILL
    content = (world.root / "a.h5").read_bytes()
    assert (content == straight) == (merge == "copy")
    assert parts_folder(world.root / "a.h5").exists()
    assert world.run("--merge", merge) == (0, [])
    check_equal(world.root, content)


world_seconds: list[float] = []
"""Seconds of an undisturbed run on this machine."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("shard", [0, 2, 5, SHARDS - 1])
def test_a_signal_between_two_shards_keeps_them_and_exits_with_130(
    world: World, straight: bytes, number: signal.Signals, shard: int
) -> None:
    process = world.start(prelude=stopping_before(shard))
    assert process.wait() == -signal.SIGSTOP
    process.send(number)
    process.send(signal.SIGCONT)
    assert process.wait() == 130
    kept = sorted(path.name for path in parts_folder(world.root / "a.h5").glob("index-*.h5"))
    assert len(kept) > shard  # the one that was being made is kept, too
    assert process.errors() == [
        "stopped; finished shards are kept in a.h5.parts; run the same command again to continue"
    ]
    assert world.run() == (0, [])
    check_equal(world.root, straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_at_any_other_moment_prints_one_line(world: World, straight: bytes, number: signal.Signals) -> None:
    for share in (0.03, 0.2, 0.4):
        process = world.start()
        process.begun()
        time.sleep(share * (world_seconds or [1.5])[0])
        process.send(number)
        assert process.wait() == 130
        (line,) = process.errors()
        assert "run the same command again" in line
    assert world.run() == (0, [])
    check_equal(world.root, straight)


# ---- disks


@pytest.mark.parametrize("size", ["4k", "16k", "32k", "64k", "128k", "256k", "384k", "512k"])
def test_a_full_disk_prints_one_line_and_keeps_finished_shards(
    world: World, straight: bytes, disk: Callable[..., Path], size: str
) -> None:
    folder = disk(size)
    code, errors = world.run(out="disk/a.h5")
    if code:
        assert code == 1
        (line,) = errors
        assert "disk is full" in line
        assert "run the same command again" in line
        assert not (folder / "a.h5").exists()
        disk("32m")
        assert world.run(out="disk/a.h5") == (0, [])
    check_equal(folder, straight)


def test_a_read_only_target_prints_one_line(world: World, straight: bytes, disk: Callable[..., Path]) -> None:
    disk(mode="ro")
    code, (line,) = world.run(out="disk/a.h5")
    assert code == 1
    assert "disk/a.h5" in line
    assert "cannot be written (Read-only file system)" in line
    assert "--out" in line
    disk(mode="rw")
    assert world.run(out="disk/a.h5") == (0, [])
    check_equal(world.root / "disk", straight)


def test_a_target_that_becomes_read_only_keeps_finished_shards(
    world: World, straight: bytes, disk: Callable[..., Path]
) -> None:
    disk("32m")
    process = world.start(out="disk/a.h5", prelude=stopping_before(6))
    assert process.wait() == -signal.SIGSTOP
    process.send(signal.SIGKILL)  # a process that holds files open there would keep it writable
    assert process.wait() == -signal.SIGKILL
    disk("32m", mode="ro")
    code, (line,) = world.run(out="disk/a.h5")
    assert code == 1
    assert "Read-only file system" in line
    assert len(list((world.root / "disk" / "a.h5.parts").glob("index-*.h5"))) >= 6
    disk("32m", mode="rw")
    assert world.run(out="disk/a.h5") == (0, [])
    check_equal(world.root / "disk", straight)


# ---- files


@pytest.mark.parametrize("again", ["restored", "gone", "garbage"])
@pytest.mark.parametrize("shard", [1, 5, SHARDS - 1])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_lost_during_the_run_is_reported_and_the_next_call_uses_the_rest(
    world: World, straight: bytes, split: str, shard: int, again: str
) -> None:
    victim = sorted(path for path in (world.root / "birds").rglob("*.png") if split in path.name)[-1]
    content = victim.read_bytes()
    process = world.start(prelude=stopping_before(shard))
    assert process.wait() == -signal.SIGSTOP
    if again == "garbage":
        victim.write_bytes(content[:50])
    else:
        victim.unlink()
    process.send(signal.SIGCONT)
    code = process.wait()
    errors = process.errors()
    assert (code, len(errors)) in ((0, 0), (1, 1))
    if errors:
        assert victim.name in errors[0]
        assert "restore it" in errors[0]
    if again == "restored":
        victim.write_bytes(content)
    if code:
        assert world.run() == (0, [])
    if split == "test" and again == "restored":  # skipped by the first call, if it had not been read before
        assert world.run("--retry-failed") == (0, [])
    if again == "restored" or (world.root / "a.h5").read_bytes() == straight:
        check_equal(world.root, straight)
        return
    assert world.run(out="without.h5") == (0, [])
    check_equal(world.root, (world.root / "without.h5").read_bytes())


# ---- two at once


def test_a_second_run_on_the_same_target_is_refused(world: World, straight: bytes) -> None:
    first = world.start(prelude=stopping_before(3))
    assert first.wait() == -signal.SIGSTOP
    for more in ((), ("--overwrite",)):
        code, (line,) = world.run(*more)
        assert code == 1
        assert line.startswith("a.h5: another run is writing to it")
        assert "choose another --out" in line
    first.send(signal.SIGCONT)
    assert first.wait() == 0
    check_equal(world.root, straight)


# ---- the same bytes


@pytest.mark.parametrize("more", [("--workers", 1), ("--workers", 5)], ids=lambda more: f"{more[1]}")
def test_the_number_of_workers_changes_no_byte(world: World, straight: bytes, more: tuple[object, ...]) -> None:
    assert world.run(*more) == (0, [])
    check_equal(world.root, straight)


def test_a_resumed_run_with_other_workers_gives_the_same_bytes(world: World, straight: bytes) -> None:
    process = world.start("--workers", 1, prelude=stopping_before(7))
    assert process.wait() == -signal.SIGSTOP
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert world.run("--workers", 4) == (0, [])
    check_equal(world.root, straight)
