"""Augmenting on Ray: the bytes of the local executor, also if workers die."""

from __future__ import annotations

import builtins
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import making_augmentations
import pytest
import torch
from making_runs import Listener, dagaug, interrupt_at, write_judge

from dagaug.augment.morph_plan import VARIANTS
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import ShardSizes
from dagaug.augment.ray_executor import RayExecutor
from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.shards import parts_folder
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import MissingExtraError, UsageError
from dagaug.runtime.signals import Interrupted

REFS = 2


@pytest.fixture(scope="module")
def options(birds_judge: Path) -> AugmentOptions:
    return AugmentOptions(
        refs=REFS, variants=VARIANTS, background="other", weights=birds_judge, classifier="test_resnet", batch_size=16
    )


def test_without_ray_the_error_names_the_install_command(
    birds_run: Path, birds_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'dagaug\[ray\]'"):
        RayExecutor()
    command = ("augment", birds_folder, "--refs", 1, "--checkpoint", birds_run, "--out", tmp_path / "a.h5")
    output = dagaug(*command, "--engine", "ray")
    assert (output.code, "pip install 'dagaug[ray]'" in output.err) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_options_of_ray_without_it_are_refused(birds_run: Path, birds_folder: Path, tmp_path: Path) -> None:
    output = dagaug("augment", birds_folder, "--refs", 1, "--checkpoint", birds_run, "--ray-workers", 2)
    assert (output.code, "used only with a Ray cluster" in output.err) == (2, True)


# ---- a cluster of two workers on this machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray on this machine, with room for two workers."""
    ray = pytest.importorskip("ray", reason="needs the extra dagaug[ray]")
    executor = RayExecutor(workers=2, device="cpu")
    with executor:
        yield ray


run = partial(making_augmentations.run, shard_sizes=ShardSizes(sources=2, real=9))


@pytest.fixture
def straight(model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path) -> bytes:
    """What the local engine writes."""
    run(model, birds, options, tmp_path / "local.h5")
    return (tmp_path / "local.h5").read_bytes()


def workers() -> list[int]:
    """Processes of actors of the class that holds the networks."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cmdline").read_bytes().startswith(b"ray::_Worker"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_workers_write_the_local_bytes_even_if_one_is_killed(
    cluster: Any, model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path, straight: bytes
) -> None:
    killed: list[int] = []

    def kill_one(name: str, done: int) -> None:
        if name == "Morphing" and not killed and done:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    listener = Listener(kill_one)
    done = run(
        model, birds, options, tmp_path / "ray.h5", executor=RayExecutor(workers=2, device="cpu"), progress=listener
    )
    assert killed
    assert (tmp_path / "ray.h5").read_bytes() == straight
    assert listener.done["Morphing"] == done.candidates
    assert listener.done["Storing real images"] == done.real
    assert not parts_folder(tmp_path / "ray.h5").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_run_begun_on_ray_can_be_finished_locally(
    cluster: Any, model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path, straight: bytes
) -> None:
    out = tmp_path / "ray.h5"
    first = interrupt_at("Morphing", 2 * REFS * len(VARIANTS))
    with pytest.raises(Interrupted, match="finished shards are kept"):
        run(model, birds, options, out, executor=RayExecutor(workers=2, device="cpu"), progress=first)
    assert not out.exists()
    run(model, birds, options, out, merge="virtual")
    copy = tmp_path / "local.h5"
    assert verify(out).content_sha256 == verify(copy).content_sha256
    assert copy.read_bytes() == straight


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ray_adds_skipped_files_to_a_finished_file(
    cluster: Any, model: TrainedModel, birds_folder: Path, options: AugmentOptions, tmp_path: Path
) -> None:
    out, root = tmp_path / "ray.h5", tmp_path / "birds"
    shutil.copytree(birds_folder, root)
    data = read_dataset(root)
    file = data.file(data.train[5])
    content = file.read_bytes()
    file.write_bytes(content[:100])
    assert len(run(model, data, options, out).skipped) == 1
    file.write_bytes(content)
    listener = Listener()
    run(model, data, options, out, retry_failed=True, executor=RayExecutor(workers=2, device="cpu"), progress=listener)
    assert listener.done["Reusing shards"] > 0
    run(model, data, options, tmp_path / "straight.h5")
    assert out.read_bytes() == (tmp_path / "straight.h5").read_bytes()


@pytest.mark.slow
def test_an_unreachable_cluster_is_refused(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra dagaug[ray]")
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(UsageError, match=r"ray_address=127\.0\.0\.1:1: no Ray cluster can be used"):
        RayExecutor("127.0.0.1:1").__enter__()


def test_threads_do_not_change_what_is_computed(
    model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path
) -> None:
    # not test_resnet: where a map has shrunk to one cell, some processors split a convolution's sums between threads
    write_judge(birds, tmp_path / "plain.safetensors", "plain")
    few = options.model_copy(update={"limit": 4, "encoding": "png", "weights": tmp_path / "plain.safetensors"})
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            run(model, birds, few, tmp_path / f"{threads}.h5")
        finally:
            torch.set_num_threads(before)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()
