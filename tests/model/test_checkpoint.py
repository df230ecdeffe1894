"""Checkpoints: round trips, refused files, no partial files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dagaug.model import checkpoint
from dagaug.runtime.errors import CheckpointError

TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "half": torch.tensor([0.5, -0.25], dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "turned": torch.arange(6.0).view(2, 3).T,
}
HEADER = {"step": 7, "names": ["wren", "‹Zaunkönig›"], "nested": {"rate": 0.1}}


def saved(folder: Path, name: str = "state.safetensors") -> Path:
    path = folder / name
    checkpoint.save(path, TENSORS, HEADER)
    return path


def refused(path: Path) -> str:
    """The message, which is one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_tensors_and_header_come_back_as_they_were(tmp_path: Path) -> None:
    tensors, header = checkpoint.load(saved(tmp_path))
    assert header == HEADER
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_tensors_that_share_memory_are_saved_whole(tmp_path: Path) -> None:
    tensor = torch.arange(4.0)
    checkpoint.save(tmp_path / "x", {"a": tensor, "b": tensor, "part": tensor[1:3]}, {})
    tensors, _ = checkpoint.load(tmp_path / "x")
    assert torch.equal(tensors["a"], tensors["b"])
    assert tensors["part"].tolist() == [1.0, 2.0]


def test_the_same_content_makes_the_same_file(tmp_path: Path) -> None:
    first, second = saved(tmp_path, "first"), saved(tmp_path, "second")
    assert first.read_bytes() == second.read_bytes()
    assert checkpoint.sha256(first) == checkpoint.sha256(second)


def test_saving_again_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = saved(tmp_path)
    checkpoint.save(path, {"other": torch.zeros(1)}, {"step": 8})
    tensors, header = checkpoint.load(path)
    assert (list(tensors), header) == (["other"], {"step": 8})
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_save_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", no_space)
    with pytest.raises(CheckpointError, match=r"No space left on device.*try another out"):
        checkpoint.save(path, {}, {"step": 8})
    assert checkpoint.load(path)[1] == HEADER
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        saved(tmp_path / "nowhere")


def test_the_error_for_a_missing_checkpoint_names_the_next_step(tmp_path: Path) -> None:
    assert "dagaug train" in refused(tmp_path / "none.safetensors")
    assert "dagaug train" in refused(tmp_path)  # a folder is none either


@pytest.mark.parametrize("kept", [0, 4, 100, -1], ids=["empty", "a few bytes", "header only", "all but a byte"])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "not a readable checkpoint" in refused(path)


class _Explosive:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    plain, zipped = tmp_path / "plain.safetensors", tmp_path / "zipped.safetensors"
    plain.write_bytes(pickle.dumps(_Explosive(victim)))
    torch.save({"weights": _Explosive(victim)}, zipped)
    for path in (plain, zipped):
        assert "not a readable checkpoint" in refused(path)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no header of dagaug"),
        ({"other": "{}"}, "no header of dagaug"),
        ({"dagaug": "{"}, "not a readable checkpoint"),
        ({"dagaug": "[1]"}, "not an object"),
    ],
    ids=["none", "another program's", "broken JSON", "no object"],
)
def test_safetensors_of_other_programs_are_refused(
    tmp_path: Path, metadata: dict[str, str] | None, message: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    assert message in refused(path)


# ---- names


def test_what_is_put_under_a_prefix_is_found_under_it_alone() -> None:
    mine, theirs = {"a/b": torch.ones(1), "c": torch.zeros(1)}, {"c": torch.ones(2)}
    together = checkpoint.add_prefix("ema", mine) | checkpoint.add_prefix("ema2", theirs)
    assert checkpoint.strip_prefix("ema", together) == mine
    assert checkpoint.strip_prefix("ema2", together) == theirs
    assert checkpoint.strip_prefix("em", together) == {}


# ---- networks and optimisers


@pytest.mark.parametrize(
    "tensors",
    [{}, {"weight": torch.zeros(3, 2)}, {"weight": torch.zeros(2, 3), "bias": torch.zeros(3), "more": torch.zeros(1)}],
    ids=["missing", "wrong shape", "too many"],
)
def test_weights_of_another_network_are_refused_in_one_line(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="networks of other shapes") as caught:
        checkpoint.load_module(nn.Linear(3, 2), tensors, Path("runs/x"))
    assert str(caught.value).startswith("runs/x: ")
    assert "\n" not in str(caught.value)


def test_loaded_weights_are_those_that_were_saved() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    checkpoint.load_module(second, first.state_dict(), Path("x"))
    x = torch.randn(4, 3)
    assert torch.equal(first(x), second(x))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.05, betas=(0.5, 0.99))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    (model(x) - x[:, :2]).square().mean().backward()
    optimizer.step()


def test_a_restored_optimiser_makes_the_very_step_the_first_would_have_made(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = make_optimizer(model)
    for seed in range(3):
        step(model, optimizer, seed)
    tensors = checkpoint.add_prefix("model", model.state_dict())
    tensors |= checkpoint.add_prefix("adam", checkpoint.optimizer_tensors(optimizer))
    checkpoint.save(tmp_path / "state", tensors, {})

    read, _ = checkpoint.load(tmp_path / "state")
    resumed, forgetful = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2))
    for other in (resumed, forgetful):
        checkpoint.load_module(other, checkpoint.strip_prefix("model", read), tmp_path)
    restored = make_optimizer(resumed)
    checkpoint.restore_optimizer(restored, checkpoint.strip_prefix("adam", read))

    step(model, optimizer, 3)
    step(resumed, restored, 3)
    step(forgetful, make_optimizer(forgetful), 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), forgetful.parameters(), strict=True))


def test_restoring_keeps_the_optimiser_s_own_options() -> None:
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model)
    step(model, optimizer, 0)
    slower = torch.optim.Adam(model.parameters(), lr=1e-5)
    checkpoint.restore_optimizer(slower, checkpoint.optimizer_tensors(optimizer))
    assert slower.param_groups[0]["lr"] == 1e-5
    assert len(slower.state) == 2
