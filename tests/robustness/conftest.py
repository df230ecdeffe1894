"""Data, a trained run and a judge on disk; a server that starts commands; the file of an undisturbed run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import Server
from worlds import World


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("outputs")) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, server: Server, birds_folder: Path, birds_run: Path, birds_judge: Path) -> World:
    shutil.copytree(birds_folder, tmp_path / "birds")
    shutil.copytree(birds_run, tmp_path / "run")
    shutil.copy(birds_judge, tmp_path / "judge.safetensors")
    return World(tmp_path, server)


@pytest.fixture(scope="session")
def straight(
    tmp_path_factory: pytest.TempPathFactory, server: Server, birds_folder: Path, birds_run: Path, birds_judge: Path
) -> bytes:
    """The file of the same command without disturbance."""
    root = tmp_path_factory.mktemp("straight")
    for name, path in (("birds", birds_folder), ("run", birds_run), ("judge.safetensors", birds_judge)):
        (root / name).symlink_to(path)
    assert World(root, server).run() == (0, [])
    return (root / "a.h5").read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a small file system: ``disk("64k")``; ``disk("8m")`` makes it larger, ``disk(mode="ro")`` read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(size: str = "8m", mode: str = "rw") -> Path:
        nonlocal mounted
        options = f"size={size},{mode}" + ",remount" * mounted
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode and not mounted:
            pytest.skip("needs the permission to mount")
        assert not done.returncode, done.stderr
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
