"""Folded batch norms: the same outputs, and the original layers after it."""

from __future__ import annotations

import pytest
import torch
from making_classifiers import CLASSES, coloured
from torch import Tensor, nn

from dagaug.classifiers.backbones import build
from dagaug.classifiers.fit import FitOptions, fit
from dagaug.classifiers.folded_batch_norm import fold_batch_norm, folded_frozen_layers
from dagaug.classifiers.frozen_feature_maps import build_extractor
from dagaug.classifiers.frozen_stages import freeze_stages

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def with_statistics(module: nn.Module) -> nn.Module:
    """Statistics of batch norm as after a training."""
    generator = torch.Generator().manual_seed(1)
    for norm in norms(module):
        for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            assert tensor is not None
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "lite0"])
def test_a_frozen_network_has_no_batch_norm_left_and_gives_the_same_outputs(name: str) -> None:
    network = build(name, 3, size=32).eval().requires_grad_(False)
    with_statistics(network)
    before, state = network(IMAGES), dict(network.state_dict())
    undo = fold_batch_norm(network, 32)
    assert norms(network) == []
    torch.testing.assert_close(network(IMAGES), before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    undo()
    assert torch.equal(network(IMAGES), before)
    assert dict(network.state_dict()).keys() == state.keys()


def test_only_frozen_stages_are_folded_and_all_come_back() -> None:
    network = build("test_resnet", 3, size=32).train()
    with_statistics(network)
    total = len(norms(network))
    freeze_stages(network, 3)
    training = [part.training for part in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with folded_frozen_layers(network, 32):
        assert 0 < len(norms(network)) < total
        assert all(norm.training for norm in norms(network))
    assert [part.training for part in network.modules()] == training
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


class _UsedTwice(nn.Module):
    """The convolution's output is read by a batch norm and by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.conv(images)
        return self.norm(found) + found


def test_a_convolution_whose_output_is_used_twice_is_not_folded() -> None:
    module = with_statistics(_UsedTwice()).eval().requires_grad_(False)
    before = module(IMAGES)
    fold_batch_norm(module, 32)
    assert len(norms(module)) == 1
    assert torch.equal(module(IMAGES), before)


def test_a_network_that_trains_is_left_as_it_is() -> None:
    network = build("test_resnet", 3, size=32).train()
    count = len(norms(network))
    with folded_frozen_layers(network, 32):
        assert len(norms(network)) == count


def test_the_other_stages_get_the_same_gradients() -> None:
    network = build("test_resnet", 3, size=32).train()
    with_statistics(network)
    freeze_stages(network, 3)
    trained = [one for one in network.parameters() if one.requires_grad]
    plain = torch.autograd.grad(network(IMAGES).square().sum(), trained)
    with folded_frozen_layers(network, 32):
        folded = torch.autograd.grad(network(IMAGES).square().sum(), trained)
    for ours, theirs in zip(folded, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3 * float(theirs.abs().max()))


def test_a_fine_tuned_network_has_its_own_layers_again() -> None:
    images, labels = coloured(12)
    options = FitOptions("test_resnet", 32, steps=2, batch_size=6, frozen_stages=3)
    fitted = fit(images, labels, CLASSES, options, seed=0).network
    assert fitted.state_dict().keys() == build("test_resnet", len(CLASSES), size=32).state_dict().keys()


def test_an_extractor_names_its_weights_as_they_were_given() -> None:
    torch.manual_seed(0)
    extractor = build_extractor("test_resnet", input_size=64, pretrained=False)
    assert norms(extractor) == []
    torch.manual_seed(0)
    assert build_extractor("test_resnet", input_size=64, pretrained=False).sha256() == extractor.sha256()
    torch.manual_seed(1)
    assert build_extractor("test_resnet", input_size=64, pretrained=False).sha256() != extractor.sha256()
