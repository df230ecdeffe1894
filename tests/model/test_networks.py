"""The networks' parts: masks by hand, centres of known heat maps, the architecture that Sec. 3.4 describes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from dagaug.model.known_warps import identity_grid
from dagaug.model.networks import (
    DeepAttentionEncoder,
    Discriminator,
    Encoder,
    Generator,
    Localisation,
    Residual,
    ResidualClassifier,
    Structure,
    StructureEncoder,
    attention_masks,
    conv_block,
    resize,
    upsample,
)
from dagaug.model.task_presets import AttentionSettings


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# ---- attention masks (eqs. 2 and 4)


def test_a_mask_is_the_product_of_two_differences_of_sigmoids() -> None:
    """By hand: pixel centres of 4 pixels are -0.75, -0.25, 0.25, 0.75; the centre is not the same in x and y."""
    k, half, x, y = 6.0, 0.4, 0.2, -0.5
    mask = attention_masks(torch.tensor([[[x, y]]]), 4, half_size=half, sharpness=k)[0, 0]
    for row, y_pixel in enumerate((-0.75, -0.25, 0.25, 0.75)):
        for column, x_pixel in enumerate((-0.75, -0.25, 0.25, 0.75)):
            across = sigmoid(k * (x_pixel - (x - half))) - sigmoid(k * (x_pixel - (x + half)))
            down = sigmoid(k * (y_pixel - (y - half))) - sigmoid(k * (y_pixel - (y + half)))
            assert mask[row, column].item() == pytest.approx(across * down, abs=1e-6)


def test_the_mask_of_one_pixel_at_the_centre_of_its_region_has_a_closed_form() -> None:
    """σ(k w) - σ(-k w) = tanh(k w / 2), in both directions."""
    mask = attention_masks(torch.zeros(1, 1, 2), 1, half_size=0.3, sharpness=5.0)
    assert mask.item() == pytest.approx(math.tanh(5 * 0.3 / 2) ** 2)


def test_a_mask_becomes_a_box_as_the_sharpness_grows() -> None:
    centre = torch.tensor([0.25, -0.4])
    inside = ((identity_grid(16) - centre).abs() < 0.43).all(-1).float()  # no pixel lies on this edge
    error = [
        (attention_masks(centre[None, None], 16, half_size=0.43, sharpness=k)[0, 0] - inside).abs().max().item()
        for k in (5.0, 50.0, 500.0, 5000.0)
    ]
    assert error == sorted(error, reverse=True)
    assert error[0] > 0.3
    assert error[-1] < 1e-6


def test_masks_lie_between_zero_and_one_wherever_the_centre_is() -> None:
    centres = 4 * torch.rand(2, 50, 2) - 2
    masks = attention_masks(centres, 8, half_size=0.3, sharpness=20.0)
    assert masks.min() >= 0
    assert masks.max() <= 1


def test_a_mask_follows_its_centre() -> None:
    """Moved by whole pixels, the mask is the same mask moved."""
    masks = attention_masks(torch.tensor([[[-0.25, 0.0], [0.0, 0.25]]]), 16, half_size=0.3, sharpness=20.0)[0]
    torch.testing.assert_close(masks[1, 2:, 2:], masks[0, :-2, :-2])  # two pixels of 2/16 to the right and down


def test_the_masks_gradient_with_respect_to_the_centres_is_right() -> None:
    centres = torch.tensor([[[0.1, -0.3], [0.6, 0.2]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: attention_masks(c, 6, half_size=0.4, sharpness=8.0), (centres,))


def test_the_masks_gradient_agrees_with_finite_differences() -> None:
    weight = torch.randn(8, 8, dtype=torch.float64)

    def total(x: float, y: float) -> Tensor:
        centre = torch.tensor([[[x, y]]], dtype=torch.float64)
        return (attention_masks(centre, 8, half_size=0.35, sharpness=12.0) * weight).sum()

    centre = torch.tensor([[[0.12, -0.31]]], dtype=torch.float64, requires_grad=True)
    (attention_masks(centre, 8, half_size=0.35, sharpness=12.0) * weight).sum().backward()
    step = 1e-5
    across = (total(0.12 + step, -0.31) - total(0.12 - step, -0.31)) / (2 * step)
    down = (total(0.12, -0.31 + step) - total(0.12, -0.31 - step)) / (2 * step)
    assert centre.grad is not None
    torch.testing.assert_close(centre.grad.flatten(), torch.stack([across, down]), atol=1e-6, rtol=1e-6)


def test_more_light_on_the_right_draws_the_centre_to_the_right() -> None:
    centre = torch.zeros(1, 1, 2, requires_grad=True)
    (attention_masks(centre, 16, half_size=0.3, sharpness=20.0) * identity_grid(16)[..., 0]).sum().backward()
    assert centre.grad is not None
    assert centre.grad[0, 0, 0] > 1
    assert centre.grad[0, 0, 1] == pytest.approx(0, abs=1e-4)


def test_centres_of_three_coordinates_are_refused() -> None:
    with pytest.raises(TypeCheckError):
        attention_masks(torch.zeros(1, 4, 3), 8, half_size=0.3, sharpness=20.0)


# ---- localisation (eq. 1)


def test_a_flat_feature_map_puts_every_centre_in_the_middle() -> None:
    centres = Localisation(5, 3)(torch.ones(2, 5, 8, 8))
    torch.testing.assert_close(centres, torch.zeros(2, 3, 2), atol=1e-6, rtol=0)


def test_a_single_hot_cell_is_where_the_centre_is() -> None:
    localise = Localisation(2, 2)
    with torch.no_grad():
        localise.heat.weight.copy_(torch.eye(2)[:, :, None, None])
    features = torch.zeros(1, 2, 8, 8)
    features[0, 0, 1, 6] = 100  # row 1, column 6
    features[0, 1, 7, 0] = 100
    expected = torch.tensor([[[13 / 8 - 1, 3 / 8 - 1], [1 / 8 - 1, 15 / 8 - 1]]])  # (2 i + 1) / 8 - 1, x first
    torch.testing.assert_close(localise(features), expected)


def test_centres_lie_in_the_image() -> None:
    assert Localisation(4, 6)(100 * torch.randn(3, 4, 8, 8)).abs().max() <= 1


# ---- small parts


def test_upsampling_repeats_the_nearest_pixel() -> None:
    assert upsample(torch.tensor([[[[1.0, 2.0]]]])).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


def test_resizing_a_ramp_keeps_it_a_ramp() -> None:
    ramp = identity_grid(8)[None, None, ..., 0]
    torch.testing.assert_close(resize(ramp, 16)[..., 1:-1], identity_grid(16)[None, None, :, 1:-1, 0])


def test_a_conv_block_s_outputs_are_not_negative() -> None:
    assert conv_block(3, 8, stride=2)(torch.randn(2, 3, 8, 8)).min() == 0


def test_a_residual_block_with_a_zero_body_returns_its_input() -> None:
    block = Residual(4)
    last = block.body[-1]
    assert isinstance(last, nn.BatchNorm2d)
    nn.init.zeros_(last.weight)
    x = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_the_encoder_halves_twice() -> None:
    half, quarter = Encoder(8, 12)(torch.zeros(2, 3, 32, 32))
    assert half.shape == (2, 8, 16, 16)
    assert quarter.shape == (2, 12, 8, 8)


def test_keys_are_unit_vectors_and_object_logits_have_the_image_s_size() -> None:
    _, keys, logits = StructureEncoder(8, 6)(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(2, 8, 8))
    assert logits.shape == (2, 1, 32, 32)


# ---- the deep attention encoder (Sec. 3.1)


class _Constant(Encoder):
    """An E whose quarter features are given."""

    def __init__(self, quarter: Tensor) -> None:
        super().__init__()
        self.quarter = quarter

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(x), 4, 16, 16), self.quarter


def structure_of(masks: Tensor, of_object: Tensor) -> Structure:
    batch, regions, side, _ = masks.shape
    return Structure(
        centres=torch.zeros(batch, regions, 2),
        masks=masks,
        object=of_object,
        keys=torch.zeros(batch, 4, side, side),
        features=torch.zeros(batch, 4, side, side),
    )


def test_a_region_s_vector_is_the_mean_of_the_object_s_features_inside_it() -> None:
    """Region 0 is the left half, region 1 the right; the object is the upper half; a quadrant has one feature."""
    quarter = torch.zeros(1, 1, 8, 8)
    quarter[..., :4, :4], quarter[..., :4, 4:], quarter[..., 4:, :] = 2.0, -3.0, 100.0
    masks = torch.zeros(1, 2, 8, 8)
    masks[:, 0, :, :4] = masks[:, 1, :, 4:] = 1
    of_object = torch.zeros(1, 1, 8, 8)
    of_object[..., :4, :] = 1
    dae = DeepAttentionEncoder(AttentionSettings(2, 0.3), width=4, keys=4)
    dae.encoder = _Constant(quarter)
    read = dae.appearance(torch.zeros(1, 3, 32, 32), structure_of(masks, of_object))
    torch.testing.assert_close(read.vectors[..., 0], torch.tensor([[2.0, -3.0]]), rtol=1e-3, atol=0)


def test_instances_are_the_encodings_of_one_masked_image_each_concatenated() -> None:
    """Eq. 3 and Sec. 3.4, against a loop over the regions."""
    dae = DeepAttentionEncoder(AttentionSettings(3, 0.4), width=4, keys=4).eval()
    images = 2 * torch.rand(2, 3, 32, 32) - 1
    with torch.no_grad():
        instances = dae(images)
        structure, _ = dae.structure(images)
        masks = attention_masks(structure.centres, 32, half_size=0.4, sharpness=20.0)
        for region in range(3):
            _, expected = dae.encoder(images * masks[:, region : region + 1])
            torch.testing.assert_close(instances[:, 8 * region : 8 * (region + 1)], expected)
    assert instances.shape == (2, 3 * 8, 8, 8)


def test_the_object_map_of_a_structure_is_a_probability() -> None:
    dae = DeepAttentionEncoder(AttentionSettings(3, 0.4), width=4, keys=4)
    structure, logits = dae.structure(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(torch.logit(structure.object, eps=1e-6), logits, atol=1e-4, rtol=1e-4)
    assert structure.centres.shape == (2, 3, 2)
    assert structure.masks.shape == (2, 3, 8, 8)


def test_a_batch_of_structures_is_taken_apart_row_by_row() -> None:
    whole = structure_of(torch.rand(4, 2, 8, 8), torch.rand(4, 1, 32, 32))
    assert torch.equal(whole[1:3].masks, whole.masks[1:3])
    assert torch.equal(whole[torch.tensor([3, 0])].object, whole.object[[3, 0]])


def test_a_detached_structure_passes_no_gradient_on() -> None:
    masks = torch.rand(1, 2, 8, 8, requires_grad=True)
    whole = structure_of(masks, torch.rand(1, 1, 32, 32))
    assert whole.masks.requires_grad
    assert not whole.detach().masks.requires_grad


# ---- generator, discriminators, classifier (Sec. 3.4)


def test_the_generator_enlarges_by_four() -> None:
    drawn = Generator(6, width=12, blocks=1)(torch.randn(2, 6, 8, 8))
    assert drawn.shape == (2, 3, 32, 32)


def test_batch_norm_follows_every_convolution_of_the_generator_but_the_last() -> None:
    layers = [m for m in Generator(6, width=12).modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.ReLU)]
    kinds = [type(layer) for layer in layers]
    assert kinds[-1] is nn.Conv2d
    convolutions = [index for index, kind in enumerate(kinds[:-1]) if kind is nn.Conv2d]
    assert all(kinds[index + 1] is nn.BatchNorm2d for index in convolutions)
    assert all(
        layer.kernel_size == (3, 3) and layer.stride == (1, 1) for layer in layers if isinstance(layer, nn.Conv2d)
    )


def test_the_generator_reads_what_is_added_at_a_half_and_at_the_whole() -> None:
    generator = Generator(4, width=12, blocks=1, half_skip=2, full_skip=3).eval()
    instances, half, full = torch.randn(1, 4, 8, 8), torch.randn(1, 2, 16, 16), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        drawn = generator(instances, half, full)
        assert (generator(instances, half + 1, full) - drawn).abs().max() > 1e-4
        assert (generator(instances, half, full + 1) - drawn).abs().max() > 1e-4


def test_a_discriminator_gives_one_score_an_image_and_does_not_mix_images() -> None:
    judge = Discriminator(0, width=4).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        scores = judge(images)
        assert scores.shape == (3,)
        torch.testing.assert_close(scores[1:2], judge(images[1:2]))


def test_the_class_changes_the_discriminators_score() -> None:
    judge = Discriminator(5, width=4).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = judge(images)
        first, second = (judge(images, torch.tensor([label, label])) for label in (0, 3))
    assert (first - second).abs().min() > 1e-6
    assert (first - plain).abs().min() > 1e-6


def test_without_classes_labels_change_nothing() -> None:
    judge = Discriminator(0, width=4).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(judge(images), judge(images, torch.tensor([0, 1])))


def test_every_layer_of_a_discriminator_has_spectral_norm_one() -> None:
    judge = Discriminator(5, width=8)
    for _ in range(30):  # the norm is estimated by one power iteration a pass
        judge(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    layers = [m for m in judge.eval().modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 6
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_the_classifier_of_table_4_has_nine_residual_blocks() -> None:
    d = ResidualClassifier(6, 7, width=8)
    assert sum(isinstance(module, Residual) for module in d.modules()) == 9
    features, logits = d(torch.randn(2, 6, 8, 8))
    assert features.shape == (2, 8)
    assert logits.shape == (2, 7)


def test_grey_images_are_refused() -> None:
    with pytest.raises(TypeCheckError):
        Encoder(4, 8)(torch.zeros(1, 1, 32, 32))
