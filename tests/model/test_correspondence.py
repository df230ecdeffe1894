"""Flow from similarities: exact where features are, smooth where they are not."""

from __future__ import annotations

import torch

from dagaug.model.correspondence import enlarge_flow, mutual_share, refine_flow, similarities
from dagaug.model.known_warps import identity_grid

SIDE = 12


def features(seed: int = 0) -> torch.Tensor:
    """Unit vectors that name each cell and vary smoothly: 1 × n × K."""
    grid = identity_grid(SIDE).flatten(0, 1)
    frequencies = torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)) * 3
    waves = torch.cat([(grid @ frequencies).sin(), (grid @ frequencies).cos()], 1)
    return torch.nn.functional.normalize(waves, dim=1)[None]


def shifted(cells: int) -> torch.Tensor:
    """The features of an image that shows everything so many cells further right."""
    return features().view(1, SIDE, SIDE, -1).roll(cells, 2).flatten(1, 2)


def test_an_image_matches_itself_in_place() -> None:
    scores = features() @ features().mT
    flow = refine_flow(scores, torch.ones(1, SIDE**2))
    assert (flow[0] - identity_grid(SIDE).flatten(0, 1)).abs().max() < 1 / SIDE
    assert mutual_share(scores, torch.ones(1, SIDE**2)).item() == 1


def test_a_shift_is_found_where_it_can_be_seen() -> None:
    """Reference cells show what lies two cells further left in the source."""
    scores = shifted(2) @ features().mT
    weight = (identity_grid(SIDE)[..., 0] > -1 + 4 / SIDE).float().flatten()[None]
    flow = refine_flow(scores, weight)[0]
    expected = identity_grid(SIDE).flatten(0, 1) - torch.tensor([4 / SIDE, 0])
    assert (flow - expected)[weight[0] > 0].abs().max() < 1.5 / SIDE


def test_a_single_wrong_match_is_smoothed_away() -> None:
    scores = features() @ features().mT
    cell = SIDE * (SIDE // 2) + SIDE // 2
    scores[0, cell] *= 0.5  # seen badly,
    scores[0, cell, 0] = 0.8  # and more like a corner
    flow = refine_flow(scores, torch.ones(1, SIDE**2))[0, cell]
    assert (flow - identity_grid(SIDE).flatten(0, 1)[cell]).abs().max() < 0.25


def test_mutual_share_counts_the_object_alone() -> None:
    scores = features() @ features().mT
    scores[:, : SIDE**2 // 2] = torch.rand(1, SIDE**2 // 2, SIDE**2, generator=torch.Generator().manual_seed(1)) - 2
    weight = torch.zeros(1, SIDE**2)
    weight[:, SIDE**2 // 2 :] = 1
    assert mutual_share(scores, weight).item() > 0.95
    assert mutual_share(scores, 1 - weight).item() < 0.5


def test_an_enlarged_identity_is_the_identity() -> None:
    large = enlarge_flow(identity_grid(SIDE).flatten(0, 1)[None], 48)
    assert torch.allclose(large[0], identity_grid(48), atol=1e-5)


def test_mixed_precision_does_not_change_the_flow() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = [torch.nn.functional.normalize(torch.randn(2, 8, 16, 16, generator=generator), dim=1) for _ in range(2)]
    weight = torch.ones(2, 256)
    plain = refine_flow(similarities(*keys), weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = refine_flow(similarities(*keys), weight)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)
