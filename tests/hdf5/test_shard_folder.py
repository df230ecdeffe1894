"""The shard folder: resuming, identity, locks, leftovers."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from making_shards import IDENTITY, finished, written
from making_stores import MORPHS, REAL, SHARDS, header, shard, write

from dagaug.hdf5 import shard_folder
from dagaug.hdf5.raw_dataset_bytes import ByteWriter
from dagaug.hdf5.shard_folder import open_shard_folder, remove_leftovers
from dagaug.hdf5.shards import finished_shards, parts_folder
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import LockedError, OutputExistsError, StoreError


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return finished(tmp_path_factory.mktemp("straight") / "x.h5")


def test_the_target_appears_complete_and_the_shard_folder_is_removed(tmp_path: Path, straight: bytes) -> None:
    target = tmp_path / "new" / "x.h5"
    with open_shard_folder(target, IDENTITY) as run:
        for index in range(SHARDS):
            run.write(index, shard(index))
            assert run.finished == frozenset(range(index + 1)) == finished_shards(parts_folder(target))
        assert not target.exists()
        assert run.merge(header(), SHARDS) == target
    assert [path.name for path in target.parent.iterdir()] == ["x.h5"]
    assert target.read_bytes() == straight
    assert verify(target).images == REAL + 2 * MORPHS


def test_shards_written_in_any_order_and_resumed_give_equal_bytes(tmp_path: Path, straight: bytes) -> None:
    target = tmp_path / "x.h5"
    for index in (2, 0):
        with open_shard_folder(target, IDENTITY) as run:
            run.write(index, shard(index))
    with open_shard_folder(target, IDENTITY) as run:
        assert run.finished == {0, 2}
    assert finished(target) == straight


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from dagaug.hdf5 import raw_dataset_bytes as byte_positions
from making_shards import finished

left = int(sys.argv[3])
write = byte_positions.ByteWriter.write

def dying(self, start, array):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, start, array)

byte_positions.ByteWriter.write = dying
finished(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("writes", [3, 40, 70])  # within the first shard, the second, and merging
def test_one_more_call_completes_a_killed_run(tmp_path: Path, straight: bytes, writes: int) -> None:
    target = tmp_path / "x.h5"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1] / "support"), str(target), str(writes)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not target.exists()
    assert parts_folder(target).exists()
    assert finished(target) == straight
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished target whose run was killed before it removed anything."""
    with monkeypatch.context() as patch:
        patch.setattr(shard_folder, "_remove", lambda parts: None)
        finished(tmp_path / "x.h5")
    assert finished_shards(parts_folder(tmp_path / "x.h5")) == set(range(SHARDS))
    return tmp_path / "x.h5"


@pytest.mark.parametrize(
    "gone", [(), ("manifest.json",), ("manifest.json", "index-*.h5"), ("*.json", "index-*.h5"), ("*",)]
)
def test_the_leftover_folder_of_a_finished_target_is_removed(
    left: Path, straight: bytes, gone: tuple[str, ...]
) -> None:
    noted = "*.json" not in gone and "*" not in gone
    for path in [path for pattern in gone for path in parts_folder(left).glob(pattern)]:
        path.unlink()
    assert remove_leftovers(left) == (IDENTITY if noted else None)
    assert [path.name for path in left.parent.iterdir()] == ["x.h5"]
    assert left.read_bytes() == straight
    assert remove_leftovers(left) is None


def test_the_folder_of_a_run_that_will_replace_its_target_is_no_leftover(
    tmp_path: Path, left: Path, straight: bytes
) -> None:
    other = write(tmp_path / "y.h5", "jpeg")
    left.write_bytes(other.read_bytes())  # as if the kill had come just before the rename
    with open_shard_folder(other, IDENTITY, overwrite=True) as run:
        run.write(0, shard(0))
    for target, there in ((left, set(range(SHARDS))), (other, {0})):
        assert remove_leftovers(target) is None
        assert finished_shards(parts_folder(target)) == there
        assert finished(target, overwrite=True) == straight


def test_the_folder_of_a_running_process_is_not_removed(tmp_path: Path) -> None:
    target = write(tmp_path / "x.h5", "jpeg")
    with open_shard_folder(target, IDENTITY, overwrite=True):
        (parts_folder(target) / "manifest.json").unlink()
        with pytest.raises(LockedError):
            remove_leftovers(target)


def test_another_identity_is_refused_with_both_values(tmp_path: Path) -> None:
    target = written(tmp_path / "x.h5", count=1)
    other = {"seed": 3, "options": {"refs": 5, "size": 64}}
    with pytest.raises(OutputExistsError, match=r"options\.refs = 10, but this run has options\.refs = 5"):
        open_shard_folder(target, other)
    with pytest.raises(OutputExistsError, match="steps = null, but this run has steps = 7"):
        open_shard_folder(target, {**IDENTITY, "steps": 7})
    with open_shard_folder(target, IDENTITY) as run:
        assert run.finished == {0}


def test_overwrite_restarts_with_another_identity_and_resumes_with_the_same(tmp_path: Path) -> None:
    target = written(tmp_path / "x.h5", count=1)
    with open_shard_folder(target, {"seed": 4}, overwrite=True) as run:
        assert run.finished == frozenset()
        run.write(0, shard(0))
    with open_shard_folder(target, {"seed": 4}, overwrite=True) as run:
        assert run.finished == {0}


def test_a_finished_target_stays_until_the_new_one_is_complete(tmp_path: Path, straight: bytes) -> None:
    target = write(tmp_path / "x.h5", "jpeg")
    before = target.read_bytes()
    with pytest.raises(OutputExistsError, match="exists; try overwrite=True or another out"):
        open_shard_folder(target, IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
    with open_shard_folder(target, IDENTITY, overwrite=True) as run:
        run.write(0, shard(0))
    assert target.read_bytes() == before
    assert finished(target, overwrite=True) == straight


def test_an_unreadable_manifest_is_reported_and_overwritten(tmp_path: Path) -> None:
    target = written(tmp_path / "x.h5", count=1)
    (parts_folder(target) / "manifest.json").write_text("{")
    with pytest.raises(OutputExistsError, match="unreadable manifest"):
        open_shard_folder(target, IDENTITY)
    with open_shard_folder(target, IDENTITY, overwrite=True) as run:
        assert not run.finished


def test_two_runs_on_one_target_are_refused_until_the_first_ends(tmp_path: Path) -> None:
    target = tmp_path / "x.h5"
    with open_shard_folder(target, IDENTITY), pytest.raises(LockedError, match=f"process {os.getpid()} on"):
        open_shard_folder(target, IDENTITY, overwrite=True)
    open_shard_folder(target, IDENTITY).close()


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    target = tmp_path / "x.h5"
    parts_folder(target).mkdir()
    (parts_folder(target) / "thesis.tex").write_text("mine")
    finished(target)
    assert [path.name for path in parts_folder(target).iterdir()] == ["thesis.tex"]


def test_a_truncated_shard_is_made_again(tmp_path: Path, straight: bytes) -> None:
    target = written(tmp_path / "x.h5")
    path = parts_folder(target) / "index-00001.h5"
    path.write_bytes(path.read_bytes()[:-1000])
    with open_shard_folder(target, IDENTITY) as run:
        assert run.finished == {0, 2}
    assert finished(target) == straight


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_and_finished_shards_are_kept(
    tmp_path: Path, straight: bytes, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = written(tmp_path / "x.h5", count=2)

    def full(self: ByteWriter, start: int, array: np.ndarray) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, open_shard_folder(target, IDENTITY) as run:
        patch.setattr(ByteWriter, "write", full)
        with pytest.raises(StoreError, match=r"index-00002\.h5: the disk is full; finished shards are kept in"):
            run.write(2, shard(2))
        with pytest.raises(StoreError, match=r"x\.h5: the disk is full; finished shards are kept"):
            run.merge(header(), 2)
    assert sorted(path.name for path in parts_folder(target).iterdir()) == [
        "index-00000.h5",
        "index-00001.h5",
        "lock",
        "manifest.json",
    ]
    assert finished(target) == straight


def test_a_folder_without_write_permission_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written .*; try another out"):
        open_shard_folder(tmp_path / "file" / "x.h5", IDENTITY)
    with pytest.raises(StoreError, match="is a folder; name a file"):
        open_shard_folder(tmp_path, IDENTITY)
