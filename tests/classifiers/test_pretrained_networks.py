"""Pretrained networks: from folders, the hub's cache and files; positions resampled for the size of the input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from making_networks import cached_on_hub, cut_off, saved
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from dagaug.classifiers.frozen_feature_maps import FeatureExtractor, build_extractor
from dagaug.classifiers.pretrained_networks import absolute_name, build_pretrained, licence_of
from dagaug.runtime.errors import CheckpointError, DagaugError, UsageError

IMAGES = torch.rand(2, 3, 50, 50) * 2 - 1


def weights_of(extractor: FeatureExtractor) -> dict[str, torch.Tensor]:
    return dict(extractor.network.model.state_dict())


@pytest.mark.parametrize(("patch", "wanted", "side"), [(16, 384, 384), (14, 384, 378), (14, 100, 98)])
def test_a_transformer_from_a_folder_takes_another_size_than_it_was_saved_at(
    tmp_path: Path, patch: int, wanted: int, side: int
) -> None:
    theirs = saved(tmp_path, "test_vit", patch_size=patch, img_size=224, dynamic_img_size=False)
    extractor = build_extractor(f"local-dir:{tmp_path}", input_size=wanted)
    cells = side // patch
    assert extractor.network.input_size == side
    assert [found.shape[-2:] for found in extractor(IMAGES)] == [(cells, cells)] * 2
    ours = weights_of(extractor)
    positions = resample_abs_pos_embed(theirs.pos_embed, [cells, cells], num_prefix_tokens=theirs.num_prefix_tokens)
    torch.testing.assert_close(ours["pos_embed"], positions)
    torch.testing.assert_close(ours["blocks.0.attn.qkv.weight"], theirs.blocks[0].attn.qkv.weight)


def test_a_transformer_of_any_input_size_keeps_its_positions(tmp_path: Path) -> None:
    theirs = saved(tmp_path, "test_vit", img_size=224, dynamic_img_size=True)
    extractor = build_extractor(f"local-dir:{tmp_path}", input_size=100)
    assert extractor(IMAGES)[0].shape[-1] == 96 // 16
    torch.testing.assert_close(weights_of(extractor)["pos_embed"], theirs.pos_embed)


def test_prefix_tokens_are_left_out(tmp_path: Path) -> None:
    theirs = saved(tmp_path, "test_vit", img_size=96, reg_tokens=4)
    assert theirs.num_prefix_tokens == 5
    extractor = build_extractor(f"local-dir:{tmp_path}", input_size=96)
    tokens = theirs.forward_features(extractor.network.prepare(IMAGES))[:, theirs.num_prefix_tokens :]
    torch.testing.assert_close(extractor(IMAGES)[-1].flatten(2).mT, tokens)


@pytest.mark.filterwarnings("ignore::UserWarning")  # timm resamples tables of other windows
def test_maps_of_a_network_with_channels_last_have_their_channels_first(tmp_path: Path) -> None:
    saved(tmp_path, "swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
    extractor = build_extractor(f"local-dir:{tmp_path}", input_size=128)
    assert [tuple(found.shape) for found in extractor(IMAGES)] == [(2, 96, 8, 8), (2, 192, 4, 4)]
    assert extractor.channels == (96, 192)


def test_a_convolutional_network_comes_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = saved(tmp_path / "net", "test_resnet", licence="mit")
    cached_on_hub(tmp_path / "hub", "someone/net", tmp_path / "net")
    cut_off(monkeypatch, tmp_path / "hub")
    extractor = build_extractor("hf-hub:someone/net", input_size=64)
    torch.testing.assert_close(weights_of(extractor)["conv1.0.weight"], theirs.conv1[0].weight)
    assert licence_of(extractor.network, None) == "mit"
    assert licence_of(extractor.network, tmp_path / "net" / "model.safetensors").startswith("unknown")


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k"])
def test_a_plain_name_and_one_with_a_tag_have_the_weights_of_timms_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    theirs = saved(tmp_path / "net", "test_resnet")
    cached_on_hub(tmp_path / "hub", "timm/test_resnet.r160_in1k", tmp_path / "net")
    cut_off(monkeypatch, tmp_path / "hub")
    extractor = build_extractor(name, input_size=64)
    torch.testing.assert_close(weights_of(extractor)["conv1.0.weight"], theirs.conv1[0].weight)
    assert licence_of(extractor.network, None) == "apache-2.0"


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_dinov2.lvd142m", "hf-hub:someone/net"])
def test_without_a_network_one_line_says_how_to_bring_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cut_off(monkeypatch, tmp_path)
    with pytest.raises(CheckpointError, match="the hub cannot be reached") as caught:
        build_extractor(name)
    message = str(caught.value)
    assert message.startswith(f"features={name}: its weights cannot be fetched")
    assert "feature_weights=FILE" in message
    assert "features=local-dir:FOLDER" in message
    assert "\n" not in message


def test_a_file_of_weights_needs_no_network_and_its_positions_are_resampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch, tmp_path)
    theirs = saved(tmp_path / "net", "test_vit", img_size=96, num_classes=7)
    extractor = build_extractor("test_vit", input_size=160, weights=tmp_path / "net" / "model.safetensors")
    positions = resample_abs_pos_embed(theirs.pos_embed, [10, 10], num_prefix_tokens=theirs.num_prefix_tokens)
    torch.testing.assert_close(weights_of(extractor)["pos_embed"], positions)
    assert not any(key.startswith("head.") for key in weights_of(extractor))


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "test_efficientnet")
    file = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"feature_weights=.*model\.safetensors: made for another network"):
        build_extractor("test_resnet", weights=file)
    save_file({"conv1.0.weight": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match=r"another network .* tensors missing"):
        build_extractor("test_resnet", weights=file)


@pytest.mark.parametrize("broken", ["nothing", "no weights", "other weights", "no config"])
def test_a_folder_without_a_network_is_refused_in_one_line(tmp_path: Path, broken: str) -> None:
    if broken != "nothing":
        saved(tmp_path, "test_resnet")
        missing = tmp_path / ("config.json" if broken == "no config" else "model.safetensors")
        missing.unlink()
        if broken == "other weights":
            save_file({"stem.weight": torch.zeros(3)}, missing)
    with pytest.raises(DagaugError, match="features=local-dir:") as caught:
        build_extractor(f"local-dir:{tmp_path}", input_size=64)
    assert "\n" not in str(caught.value)
    assert "another network" in str(caught.value) or "config.json and model.safetensors" in str(caught.value)


def test_unknown_names_and_tags_are_refused() -> None:
    with pytest.raises(UsageError, match=r"features=resnet_18: .*close: .*resnet18.*hf-hub:OWNER/NAME"):
        build_extractor("resnet_18")
    with pytest.raises(UsageError, match=r"features=test_resnet\.x: .*tags of test_resnet: r160_in1k"):
        build_extractor("test_resnet.x")


def test_random_weights_only_by_request() -> None:
    torch.manual_seed(0)
    first = build_pretrained("test_resnet", input_size=64, pretrained=False)
    second = build_pretrained("test_resnet", input_size=64, pretrained=False)
    assert not torch.equal(first.model.conv1[0].weight, second.model.conv1[0].weight)


def test_a_folder_is_named_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_name("local-dir:net") == f"local-dir:{tmp_path / 'net'}"
    assert absolute_name("hf-hub:someone/net") == "hf-hub:someone/net"
