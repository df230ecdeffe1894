"""LPIPS by torchmetrics, with the weights from a file: the same numbers, and no other network in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from dagaug.metrics.lpips import FILES, Lpips, find_weights
from dagaug.runtime.errors import CheckpointError

IMAGES = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def squeeze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SqueezeNet with random weights, under the name that torch gives a download."""
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), folder / FILES[2])
    return folder / FILES[2]


def test_distances_are_those_of_torchmetrics_with_the_same_weights(
    squeeze: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(squeeze.parents[1]))
    theirs = LearnedPerceptualImagePatchSimilarity(net_type="squeeze", reduction="sum")
    tensor = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 127.5 - 1
    ours = Lpips(squeeze)
    assert ours.name == "squeeze"
    found = ours.distances(IMAGES[:3], IMAGES[3:])
    expected = [float(theirs(tensor[row : row + 1], tensor[row + 3 : row + 4])) for row in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (found > 0).all()
    assert find_weights() == squeeze


def test_lpips_of_equal_images_is_0_and_symmetric(squeeze: Path) -> None:
    lpips = Lpips(squeeze)
    np.testing.assert_allclose(lpips.distances(IMAGES, IMAGES), 0, atol=1e-7)
    np.testing.assert_allclose(
        lpips.distances(IMAGES[:2], IMAGES[2:4]), lpips.distances(IMAGES[2:4], IMAGES[:2]), rtol=1e-4
    )
    assert lpips.distances(IMAGES[:0], IMAGES[:0]).shape == (0,)


def test_alexnet_is_recognised_by_its_tensors(tmp_path: Path) -> None:
    """Its first convolutions alone would do for nothing else; a head is not needed."""
    layers = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    tensors = {}
    for number, (out, into, side) in layers.items():
        tensors[f"features.{number}.weight"] = torch.randn(out, into, side, side) / (into * side * side) ** 0.5
        tensors[f"features.{number}.bias"] = torch.zeros(out)
    torch.save(tensors, tmp_path / "a.pth")
    lpips = Lpips(tmp_path / "a.pth")
    assert lpips.name == "alex"
    assert lpips.distances(IMAGES[:1], IMAGES[1:2])[0] > 0
    torch.save(tensors | {"features.0.bias": torch.zeros(63)}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"lpips=.*b\.pth: its tensors are not those of torchvision's alex"):
        Lpips(tmp_path / "b.pth")


def test_missing_and_wrong_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert find_weights() is None
    with pytest.raises(CheckpointError, match="no such file"):
        Lpips(tmp_path / "absent.pth")
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"garbage\.pth: not a readable"):
        Lpips(tmp_path / "garbage.pth")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not torchvision's weights of AlexNet, VGG16 or SqueezeNet"):
        Lpips(tmp_path / "other.pth")
