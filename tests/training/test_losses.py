"""The loss terms against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from dagaug.model.known_warps import identity_grid
from dagaug.training import losses

LOG2 = math.log(2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 2, size: int = 16) -> Tensor:
    return 2 * torch.rand(count, 3, size, size, generator=seeded()) - 1


def affine_grid(size: int, linear: list[list[float]], shift: list[float]) -> Tensor:
    """Where each pixel comes from: ``linear`` · p + ``shift``."""
    return (identity_grid(size) @ torch.tensor(linear).T + torch.tensor(shift))[None]


# ---- eqs. 5 to 9


@pytest.mark.parametrize("classes", [2, 30])
def test_the_label_loss_of_no_opinion_is_the_log_of_the_classes(classes: int) -> None:
    assert losses.label_loss(torch.zeros(3, classes), torch.tensor([0, 1, 1])).item() == pytest.approx(
        math.log(classes)
    )


def test_the_label_loss_is_the_mean_negative_log_probability_of_the_label() -> None:
    probability = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    expected = -(math.log(0.2) + math.log(0.5)) / 2
    assert losses.label_loss(probability.log(), torch.tensor([1, 2])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("translated", "expected"),
    [([0.0, 3.0], 0.0), ([0.0, -0.5], 4.0), ([7.0, 0.0], 2.0), ([1.0, math.sqrt(3)], 2 - math.sqrt(3))],
    ids=["equal", "opposite", "orthogonal", "at 30 degrees"],
)
def test_consistency_is_the_squared_distance_on_the_unit_sphere(translated: list[float], expected: float) -> None:
    """2 - 2 cos of the angle (eq. 5), for vectors of any length."""
    value = losses.consistency_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([translated]))
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_consistency_is_a_mean_over_the_batch() -> None:
    source = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    translated = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert losses.consistency_loss(source, translated).item() == pytest.approx((0 + 4) / 2)


def test_symmetry_of_equal_images_is_zero() -> None:
    assert losses.symmetry_loss(images(), images()).item() == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_symmetry_of_a_constant_offset_is_the_offset(weighted: bool) -> None:
    """Halving a constant keeps it, so that every scale says the same; so does any area that is looked at."""
    weight = torch.zeros(2, 1, 16, 16)
    weight[:, :, 4:12, 3:9] = 1
    value = losses.symmetry_loss(images(), images() + 0.3, weight if weighted else None)
    assert value.item() == pytest.approx(0.3, abs=1e-5)


def test_symmetry_counts_a_near_miss_less_than_an_absence() -> None:
    """A checkerboard of ±c averages out on the two halved sizes and counts on the first alone."""
    ones = torch.ones(1, 3, 16, 16)
    board = torch.ones(16, 16)
    board[::2, ::2] = board[1::2, 1::2] = -1
    assert losses.symmetry_loss(ones, ones + 0.6 * board).item() == pytest.approx(0.6 / 3, abs=1e-6)


def test_detail_of_equal_images_is_zero_wherever_it_lies_in_its_cell() -> None:
    """Stripes that are shifted by a pixel are as fine as before, though an L1 loss finds them all wrong."""
    whole = torch.ones(1, 1, 16, 16)
    stripes = (1 - 2 * (torch.arange(17) % 2)).float().expand(1, 3, 16, 17)
    assert losses.detail_loss(images(), images(), torch.ones(2, 1, 16, 16)).item() == 0
    inner = whole.clone()
    inner[..., :4] = inner[..., -4:] = 0  # at the border a pixel has fewer neighbours
    assert losses.detail_loss(stripes[..., 1:], stripes[..., :-1], inner).item() == pytest.approx(0, abs=1e-6)


def test_detail_of_a_flat_drawing_is_all_that_it_lacks() -> None:
    """Stripes of ±c are 4/3 c from the mean of their nine neighbours, of which a third are their own."""
    middle = torch.zeros(1, 1, 16, 16)
    middle[..., 4:12, 4:12] = 1
    stripes = 0.6 * (1 - 2 * (torch.arange(16) % 2)).float().expand(1, 3, 16, 16)
    assert losses.detail_loss(stripes, torch.zeros_like(stripes), middle).item() == pytest.approx(0.8, rel=2e-3)


def test_symmetry_sees_nothing_outside_its_weight() -> None:
    weight = torch.zeros(2, 1, 16, 16)
    weight[..., :8] = 1
    changed = images()
    changed[..., 8:] = 0
    assert losses.symmetry_loss(images(), changed, weight).item() == 0


def test_a_discriminator_without_an_opinion_loses_two_log_two() -> None:
    """-log D(t) - log(1 - D(F(s))) at D = 1/2 (eqs. 7, 8); real and fake need not be as many."""
    assert losses.discriminator_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(2 * LOG2)


def test_the_discriminator_loss_is_the_paper_s_formula() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5])
    d = [1 / (1 + math.exp(-x)) for x in (2.0, -1.0, 0.5)]
    expected = -(math.log(d[0]) + math.log(d[1])) / 2 - math.log(1 - d[2])
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(expected)


def test_a_discriminator_that_is_right_loses_nothing() -> None:
    sure = torch.full((2,), 50.0)
    assert losses.discriminator_loss(sure, -sure).item() == pytest.approx(0, abs=1e-6)
    assert losses.discriminator_loss(-sure, sure).item() == pytest.approx(100)


def test_the_adversarial_loss_is_minus_log_of_the_score() -> None:
    assert losses.adversarial_loss(torch.zeros(4)).item() == pytest.approx(LOG2)
    assert losses.adversarial_loss(torch.full((4,), math.log(3.0))).item() == pytest.approx(-math.log(0.75))


def test_the_adversarial_loss_keeps_its_slope_where_the_fake_is_found_out() -> None:
    """The non-saturating form: slope -1 at a hopeless fake, where log(1 - D) has none."""
    score = torch.tensor([-30.0], requires_grad=True)
    losses.adversarial_loss(score).backward()
    assert score.grad is not None
    assert score.grad.item() == pytest.approx(-1)


def test_the_full_objective_is_the_weighted_sum() -> None:
    terms = {"consistency": torch.tensor(2.0), "symmetry": torch.tensor(3.0), "label": torch.tensor(5.0)}
    weights = {"consistency": 0.5, "symmetry": 10.0, "label": 0.0, "unused": 7.0}
    assert losses.full_objective(terms, weights).item() == pytest.approx(0.5 * 2 + 10 * 3)


def test_the_weights_multiply_the_gradients() -> None:
    first, second = (torch.tensor(1.0, requires_grad=True) for _ in range(2))
    losses.full_objective({"a": first.square(), "b": second}, {"a": 3.0, "b": 0.25}).backward()
    assert first.grad is not None
    assert second.grad is not None
    assert (first.grad.item(), second.grad.item()) == (6.0, 0.25)


def test_a_term_without_a_weight_is_a_bug() -> None:
    with pytest.raises(KeyError, match="symmetry"):
        losses.full_objective({"symmetry": torch.tensor(1.0)}, {"consistency": 1.0})


# ---- exact supervision


def test_the_object_loss_of_no_opinion_is_log_two() -> None:
    mask = (torch.rand(2, 1, 8, 8, generator=seeded()) > 0.5).float()
    assert losses.object_loss(torch.zeros(2, 1, 8, 8), mask).item() == pytest.approx(LOG2)
    assert losses.object_loss(40 * (2 * mask - 1), mask).item() == pytest.approx(0, abs=1e-6)


GRIDS = {
    "identity": ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
    "turned and moved": ([[0.8, -0.3], [0.2, 0.7]], [0.1, -0.05]),
    "mirrored": ([[-1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_an_affine_grid_is_the_same_at_every_resolution(grid: tuple[list[list[float]], list[float]]) -> None:
    """Away from the border, where the average over neighbours has only one side."""
    coarse = losses.truth_at(affine_grid(32, *grid), 16)
    torch.testing.assert_close(coarse[:, 2:-2, 2:-2], affine_grid(16, *grid)[:, 2:-2, 2:-2], atol=1e-5, rtol=0)


def inner(size: int, border: int) -> Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[:, :, border:-border, border:-border] = 1
    return mask


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_the_flow_loss_is_zero_at_the_truth(grid: tuple[list[list[float]], list[float]]) -> None:
    value = losses.flow_loss(affine_grid(16, *grid), affine_grid(32, *grid), inner(32, 6))
    assert value.item() == pytest.approx(0, abs=1e-5)


def test_the_flow_loss_of_a_constant_error_is_its_l1_length() -> None:
    truth = affine_grid(32, *GRIDS["turned and moved"])
    flow = affine_grid(16, *GRIDS["turned and moved"]) + torch.tensor([0.25, -0.5])
    assert losses.flow_loss(flow, truth, inner(32, 6)).item() == pytest.approx(0.75, abs=1e-4)


def test_the_flow_loss_counts_the_object_alone() -> None:
    truth, mask = affine_grid(32, *GRIDS["identity"]), inner(32, 6)
    flow = affine_grid(16, *GRIDS["identity"])
    flow[:, 0] = 9.0
    assert losses.flow_loss(flow, truth, mask).item() == pytest.approx(0, abs=1e-5)
    assert losses.flow_loss(flow, truth, torch.zeros_like(mask)).item() == 0


@pytest.mark.parametrize("side", [4, 8])
def test_a_uniform_correspondence_costs_the_log_of_the_number_of_cells(side: int) -> None:
    cells = side * side
    uniform = torch.full((1, cells, cells), -math.log(cells))
    truth = affine_grid(4 * side, *GRIDS["identity"]) * 0.5  # all inside
    value = losses.correspondence_loss(uniform, truth, torch.ones(1, 1, 4 * side, 4 * side))
    assert value.item() == pytest.approx(math.log(cells), rel=1e-4)


def test_a_sure_and_right_correspondence_costs_nothing_and_a_wrong_one_much() -> None:
    """The mirrored grid: cell (row, column) comes from (row, side - 1 - column)."""
    side = 4
    cell = torch.arange(side * side).view(side, side)
    right = torch.nn.functional.one_hot(cell.flip(1).flatten(), side * side).float()
    wrong = torch.nn.functional.one_hot(cell.flatten(), side * side).float()
    truth = affine_grid(side, *GRIDS["mirrored"])  # at the cells' own size, so that nothing is averaged
    mask = torch.ones(1, 1, side, side)
    assert losses.correspondence_loss((60 * right).log_softmax(-1)[None], truth, mask).item() < 1e-4
    assert losses.correspondence_loss((60 * wrong).log_softmax(-1)[None], truth, mask).item() > 50


def quarter_shifted() -> tuple[Tensor, Tensor, Tensor]:
    """A truth a quarter of a cell to the right, the shares of the cells by hand, and a mask without the last column.

    In the last column there is no next cell to share with.
    """
    side = 4
    truth = affine_grid(side, [[1.0, 0.0], [0.0, 1.0]], [0.25 * 2 / side, 0.0])
    shares = torch.zeros(side, side, side, side)
    for row in range(side):
        for column in range(side - 1):
            shares[row, column, row, column] = 0.75
            shares[row, column, row, column + 1] = 0.25
        shares[row, side - 1, row, side - 1] = 1
    mask = torch.ones(1, 1, side, side)
    mask[..., -1] = 0
    return truth, shares.view(side * side, side * side), mask


def test_between_cells_the_truth_is_shared_out_bilinearly() -> None:
    """The cost of the right shares is their entropy."""
    truth, shares, mask = quarter_shifted()
    value = losses.correspondence_loss((shares + 1e-9).log()[None], truth, mask)
    assert value.item() == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), abs=1e-4)


def test_the_correspondence_loss_is_minimal_at_the_truth() -> None:
    """Gibbs' inequality: every other distribution costs more."""
    truth, shares, mask = quarter_shifted()
    best = losses.correspondence_loss((shares + 1e-9).log()[None], truth, mask).item()
    for seed in range(5):
        noise = torch.randn(16, 16, generator=seeded(seed))
        other = ((shares + 1e-9).log() + 0.3 * noise).log_softmax(-1)
        assert losses.correspondence_loss(other[None], truth, mask).item() > best + 1e-3


def test_what_comes_from_outside_the_source_asks_for_no_correspondence() -> None:
    outside = affine_grid(8, [[1.0, 0.0], [0.0, 1.0]], [3.0, 0.0])
    value = losses.correspondence_loss(torch.full((1, 16, 16), -7.0), outside, torch.ones(1, 1, 8, 8))
    assert value.item() == 0


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_centres_that_move_with_a_known_affine_grid_are_equivariant(
    grid: tuple[list[list[float]], list[float]],
) -> None:
    linear, shift = grid
    warped = torch.tensor([[[0.1, 0.2], [-0.5, 0.3], [0.0, -0.6]]])
    came_from = warped @ torch.tensor(linear).T + torch.tensor(shift)
    truth = affine_grid(32, *grid)
    assert losses.equivariance_loss(warped, came_from, truth).item() == pytest.approx(0, abs=1e-5)
    off = came_from + torch.tensor([0.1, -0.2])
    assert losses.equivariance_loss(warped, off, truth).item() == pytest.approx(0.3, abs=1e-5)


def test_separation_is_one_for_one_point_and_zero_far_apart() -> None:
    corners = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]])
    assert losses.separation_loss(torch.zeros(2, 3, 2)).item() == pytest.approx(1)
    assert losses.separation_loss(corners).item() == pytest.approx(0, abs=1e-6)
    assert losses.separation_loss(torch.zeros(2, 1, 2)).item() == 0


def test_separation_of_two_points_is_a_gaussian_of_their_distance() -> None:
    centres = torch.tensor([[[0.0, 0.0], [0.3, 0.4]]])
    value = losses.separation_loss(centres, reach=0.5)
    assert value.item() == pytest.approx(math.exp(-(0.5**2) / (2 * 0.5**2)))


def test_centres_on_the_object_are_inside() -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1  # the right half
    on, off = torch.tensor([[[0.7, 0.0]]]), torch.tensor([[[-0.7, 0.0]]])
    assert losses.inside_loss(on, mask).item() == pytest.approx(0, abs=1e-6)
    assert losses.inside_loss(off, mask).item() == pytest.approx(1, abs=1e-6)
    assert losses.inside_loss(torch.cat([on, off], 1), mask).item() == pytest.approx(0.5, abs=1e-6)


def test_a_centre_just_off_the_object_is_drawn_to_it() -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    centre = torch.tensor([[[-0.1, 0.0]]], requires_grad=True)
    losses.inside_loss(centre, mask).backward()
    assert centre.grad is not None
    assert centre.grad[0, 0, 0] < 0  # the loss falls to the right, where the object is


def test_the_pose_loss_adds_the_centres_l1_distance_and_one_minus_the_keys_cosine() -> None:
    centres = torch.zeros(1, 2, 2)
    keys = torch.zeros(1, 2, 4, 4)
    keys[:, 0] = 1
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    turned = keys.flip(1)  # orthogonal
    turned[..., 2:] = keys[..., 2:]  # but where the mask is empty
    moved = centres + torch.tensor([0.1, 0.2])
    assert losses.pose_loss(centres, centres, keys, keys, mask).item() == pytest.approx(0, abs=1e-6)
    assert losses.pose_loss(centres, moved, keys, keys, mask).item() == pytest.approx(0.3, abs=1e-6)
    assert losses.pose_loss(centres, centres, keys, turned, mask).item() == pytest.approx(1, abs=1e-5)
    assert losses.pose_loss(centres, centres, keys, -keys, mask).item() == pytest.approx(2, abs=1e-5)
    assert losses.pose_loss(centres, moved, keys, turned, 1 - mask).item() == pytest.approx(0.3, abs=1e-5)


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(TypeCheckError):
        losses.symmetry_loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16))
    with pytest.raises(TypeCheckError):
        losses.consistency_loss(torch.zeros(2, 3), torch.zeros(4, 3))
