"""Transport along known correspondences, and the parts of a morph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.nn import functional as F

from dagaug.model.known_warps import identity_grid, sample
from dagaug.model.mode_translators import (
    Morph,
    Morpher,
    PaperTranslator,
    ReferenceTranslator,
    Transport,
    as_sharp_as,
    composite,
)
from dagaug.model.networks import Appearance, Structure
from dagaug.model.task_presets import AttentionSettings

SIZE = 32
SIDE = SIZE // 4
CELLS = SIDE * SIDE


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def cells() -> Tensor:
    """Numbers of the cells, as they lie."""
    return torch.arange(CELLS).view(SIDE, SIDE)


def structure(names: Tensor, *, features: int = 4, regions: int = 2) -> Structure:
    """A structure whose cells carry these names as one-hot keys; all of it is object."""
    return Structure(
        centres=torch.zeros(1, regions, 2),
        masks=torch.ones(1, regions, SIDE, SIDE),
        object=torch.ones(1, 1, SIZE, SIZE),
        keys=F.one_hot(names, CELLS).permute(2, 0, 1)[None].float(),
        features=torch.randn(1, features, SIDE, SIDE),
    )


def sharp(transport: Transport) -> Transport:
    """Certain of its correspondence."""
    nn.init.constant_(transport.log_temperature, 4.0)
    return transport


def inner(grid: Tensor) -> Tensor:
    """Without the outermost pixels, which enlarging clamps to the outermost cells' centres."""
    return grid[:, 1:-1, 1:-1]


REARRANGED = {
    "identical": (lambda grid: grid, lambda grid: grid),
    "mirrored": (lambda grid: grid.flip(1), lambda grid: grid * torch.tensor([-1.0, 1.0])),
    "turned by half": (lambda grid: grid.flip(0, 1), lambda grid: -grid),
    "transposed": (lambda grid: grid.transpose(0, 1), lambda grid: grid.flip(-1)),
}


@pytest.mark.parametrize("which", REARRANGED)
def test_rearranged_keys_give_the_known_flow(which: str) -> None:
    rearrange, moved = REARRANGED[which]
    source, reference = structure(cells()), structure(rearrange(cells()))
    flow, _ = sharp(Transport(4)).eval()(source, reference)
    expected = moved(identity_grid(SIZE // 2))[None]
    torch.testing.assert_close(inner(flow), inner(expected), atol=1e-4, rtol=0)


def test_each_cell_of_the_reference_finds_its_permuted_cell_of_the_source() -> None:
    permutation = torch.randperm(CELLS)
    source, reference = structure(cells()), structure(permutation.view(SIDE, SIDE))
    log_match = sharp(Transport(4)).correspondence(source, reference)
    torch.testing.assert_close(log_match.exp()[0], F.one_hot(permutation, CELLS).float(), atol=1e-4, rtol=0)


def test_two_swapped_cells_look_at_each_other_s_place() -> None:
    names = cells().clone()
    names[2, 2], names[5, 5] = cells()[5, 5], cells()[2, 2]
    log_match = sharp(Transport(4)).correspondence(structure(cells()), structure(names))
    places = (log_match.exp()[0] @ identity_grid(SIDE).flatten(0, 1)).view(SIDE, SIDE, 2)
    straight = identity_grid(SIDE)
    torch.testing.assert_close(places[2, 2], straight[5, 5], atol=1e-4, rtol=0)
    torch.testing.assert_close(places[5, 5], straight[2, 2], atol=1e-4, rtol=0)
    torch.testing.assert_close(places[0], straight[0], atol=1e-4, rtol=0)


def test_every_reference_cell_s_correspondence_is_a_distribution() -> None:
    source, reference = structure(cells()), structure(torch.randperm(CELLS).view(SIDE, SIDE))
    source = replace(source, object=torch.rand(1, 1, SIZE, SIZE))
    total = Transport(4).correspondence(source, reference).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(1, CELLS))


def test_without_any_difference_of_keys_the_flow_points_at_the_middle_of_the_object() -> None:
    """Equal keys everywhere: the expectation is the object's centroid, here that of its left half."""
    same = structure(torch.zeros(SIDE, SIDE, dtype=torch.long))
    source = replace(same, object=torch.cat([torch.ones(1, 1, SIZE, 16), torch.zeros(1, 1, SIZE, 16)], -1))
    flow, _ = Transport(4).eval()(source, same)
    expected = torch.tensor([-0.5, 0.0]).expand(1, SIZE // 2, SIZE // 2, 2)
    torch.testing.assert_close(flow, expected, atol=1e-3, rtol=0)


def test_what_is_not_object_is_hardly_looked_at() -> None:
    """Equal keys: the probabilities are as 1 to 1e-4, exactly the floor that the object's share has."""
    same = structure(torch.zeros(SIDE, SIDE, dtype=torch.long))
    source = replace(same, object=torch.cat([torch.ones(1, 1, SIZE, 16), torch.zeros(1, 1, SIZE, 16)], -1))
    match = Transport(4).correspondence(source, same).exp().view(CELLS, SIDE, SIDE)
    ratio = match[..., -1] / match[..., 0]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1e-4 / (1 + 1e-4)))


def test_the_refinement_starts_at_nothing_and_never_exceeds_its_reach() -> None:
    transport = sharp(Transport(4, reach=0.25)).eval()
    source = structure(cells())
    before, _ = transport(source, source)
    last = transport.to_half[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.constant_(last.bias, 1e3)  # all it can
    after, _ = transport(source, source)
    torch.testing.assert_close(inner(before), inner(identity_grid(SIZE // 2)[None]), atol=1e-4, rtol=0)
    torch.testing.assert_close(after - before, torch.full_like(after, 0.25))


# ---- the morph


def morpher(*, blend: float = 0.0, mask: float = 0.0, own_pixels: float = 0.0) -> Morpher:
    """A morpher of certain correspondence whose generator's last layer says nothing but these constants."""
    made = Morpher(own_pixels=own_pixels).eval()
    sharp(made.transport)
    nn.init.zeros_(made.generator.last.weight)
    assert made.generator.last.bias is not None
    with torch.no_grad():
        made.generator.last.bias.copy_(torch.tensor([0.0, 0.0, 0.0, blend, mask]))
    return made


def appearance(image: Tensor, regions: int = 2) -> Appearance:
    return Appearance(
        image=image,
        half=torch.randn(1, 32, SIZE // 2, SIZE // 2),
        quarter=torch.randn(1, 64, SIDE, SIDE),
        vectors=torch.randn(1, regions, 64),
    )


@pytest.mark.parametrize("which", ["identical", "mirrored", "turned by half"])
def test_a_morph_of_the_source_s_own_pixels_is_the_source_rearranged(which: str) -> None:
    image = 2 * torch.rand(1, 3, SIZE, SIZE) - 1
    expected = {"identical": image, "mirrored": image.flip(-1), "turned by half": image.flip(-1, -2)}[which]
    source = structure(cells(), features=64)
    reference = structure(REARRANGED[which][0](cells()), features=64)
    morph = morpher(blend=40.0)(appearance(image), source, reference)
    edge = slice(4, -4)  # within a cell of the border the flow is clamped
    torch.testing.assert_close(morph.object[..., edge, edge], expected[..., edge, edge], atol=5e-3, rtol=0)


@pytest.mark.parametrize("own", [0.0, 0.75])
def test_own_pixels_limits_the_generated_part_of_a_morph(own: float) -> None:
    source = structure(cells(), features=64)
    drawing = morpher(blend=-40.0, own_pixels=own)
    assert drawing.generator.last.bias is not None
    with torch.no_grad():
        drawing.generator.last.bias[:3] = torch.tensor([0.5, 0.0, -2.0]).atanh().nan_to_num(-9.0)
    morph = drawing(appearance(torch.ones(1, 3, SIZE, SIZE)), source, source)
    drawn = torch.tensor([0.5, 0.0, -1.0])[:, None, None].expand(1, 3, SIZE, SIZE)
    torch.testing.assert_close(morph.object, own + (1 - own) * drawn)
    torch.testing.assert_close(morph.blend, torch.full((1, 1, SIZE, SIZE), own))


def test_the_drawn_mask_starts_from_the_reference_s_object() -> None:
    source = structure(cells(), features=64)
    of_object = torch.rand(1, 1, SIZE, SIZE)
    reference = replace(source, object=of_object)
    morph = morpher()(appearance(torch.zeros(1, 3, SIZE, SIZE)), source, reference)
    torch.testing.assert_close(morph.mask, of_object.clamp(0.02, 0.98))
    fuller = morpher(mask=0.5)(appearance(torch.zeros(1, 3, SIZE, SIZE)), source, reference)
    assert (fuller.mask > morph.mask).all()


def test_the_drawn_mask_changes_the_reference_s_by_odds_of_e_at_most() -> None:
    source = structure(cells(), features=64)
    reference = replace(source, object=torch.tensor([0.05, 0.5, 0.9, 0.95]).repeat_interleave(8).expand(1, 1, SIZE, -1))
    for drawn, change in ((1e3, 1.0), (-1e3, -1.0)):
        morph = morpher(mask=drawn)(appearance(torch.zeros(1, 3, SIZE, SIZE)), source, reference)
        torch.testing.assert_close(morph.mask, (reference.object.logit() + change).sigmoid())


def test_carried_pixels_keep_more_detail_than_bilinear_ones_and_stay_in_their_range() -> None:
    """Moved by a quarter of a pixel."""
    made, quarter = morpher(blend=40.0), 0.5 / SIZE
    last = made.transport.to_half[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(torch.tensor([quarter / made.transport.reach, 0.0]).atanh())
    lines = 1 - 2.0 * (torch.arange(SIZE) // 2 % 2).float().expand(1, 3, SIZE, SIZE)
    source = structure(cells(), features=64)
    faint, full = (made(appearance(contrast * lines), source, source).object for contrast in (0.5, 1.0))
    soft = sample(0.5 * lines, identity_grid(SIZE)[None] + torch.tensor([quarter, 0.0]))
    assert faint.abs().mean() > 1.1 * soft.abs().mean()
    assert full.abs().max() == 1


def test_the_source_s_instances_are_painted_into_the_reference_s_regions() -> None:
    """Outside of the regions nothing is painted; inside of a single region, the vector of its instance."""
    made = morpher()
    seen: list[Tensor] = []
    made.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    source = structure(cells(), features=64)
    masks = torch.zeros(1, 2, SIDE, SIDE)
    masks[:, 0, :, 0] = masks[:, 1, :, 7] = 1  # the leftmost and the rightmost column
    read = appearance(torch.zeros(1, 3, SIZE, SIZE))
    made(read, source, replace(source, masks=masks))
    painted = seen[0][0, 64 : 64 + 32]  # after the source's features
    vectors = made.instance(read.vectors)[0] / 1.1  # the sum of masks is floored by 0.1
    torch.testing.assert_close(painted[:, :, 0], vectors[0][:, None].expand(32, SIDE))
    torch.testing.assert_close(painted[:, :, 7], vectors[1][:, None].expand(32, SIDE))
    assert painted[:, :, 1:7].abs().max() == 0


def test_a_composite_shows_the_object_where_the_mask_is_and_the_background_elsewhere() -> None:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., :8], mask[..., 8:16] = 1.0, 0.25
    zero = torch.zeros(1, 1, SIZE, SIZE)
    morph = Morph(
        object=torch.full((1, 3, SIZE, SIZE), 0.8),
        mask=mask,
        flow=torch.zeros(1, SIZE // 2, SIZE // 2, 2),
        log_match=torch.zeros(1, CELLS, CELLS),
        blend=zero,
    )
    shown = composite(morph, torch.full((1, 3, SIZE, SIZE), -0.4))[0, 0, 0]
    assert shown[[0, 8, 16]].tolist() == pytest.approx([0.8, 0.25 * 0.8 - 0.75 * 0.4, -0.4])


# ---- sharpness


def stripes(contrast: float) -> Tensor:
    """Of one pixel each, around zero."""
    return contrast * (1 - 2 * (torch.arange(SIZE) % 2)).float().expand(1, 3, SIZE, SIZE)


def test_a_softened_morph_gets_as_much_detail_as_its_source() -> None:
    whole = torch.ones(1, 1, SIZE, SIZE)
    sharper = as_sharp_as(stripes(0.3), whole, stripes(0.2), whole)
    torch.testing.assert_close(sharper[..., 2:-2], stripes(0.3)[..., 2:-2], atol=0.01, rtol=0)


@pytest.mark.parametrize("source", [0.4, 0.1, 0.0])
def test_a_morph_that_is_as_sharp_as_its_source_is_left_alone(source: float) -> None:
    whole = torch.ones(1, 1, SIZE, SIZE)
    assert torch.equal(as_sharp_as(stripes(source), whole, stripes(0.4), whole), stripes(0.4))


def test_sharpening_knows_its_limits() -> None:
    """The amount is at most 2, and colours stay in their range."""
    whole = torch.ones(1, 1, SIZE, SIZE)
    faint = as_sharp_as(stripes(1.0), whole, stripes(0.01), whole)
    assert faint.abs()[..., 2:-2].max() == pytest.approx(0.01 * (1 + 2 * 4 / 3), rel=0.01)  # a third is its own mean
    assert as_sharp_as(stripes(1.0), whole, stripes(0.7), whole).abs().max() <= 1


def test_only_the_object_s_detail_counts() -> None:
    half = torch.zeros(1, 1, SIZE, SIZE)
    half[..., : SIZE // 2, :] = 1
    busy = stripes(0.4)
    busy[..., SIZE // 2 :, :] = stripes(1.0)[..., SIZE // 2 :, :]
    torch.testing.assert_close(as_sharp_as(busy, half, stripes(0.4), half), stripes(0.4))


# ---- both translators


def images(count: int = 2) -> Tensor:
    return 2 * torch.rand(count, 3, SIZE, SIZE) - 1


def test_a_reference_translator_redraws_any_encoded_source_as_any_encoded_reference() -> None:
    translator = ReferenceTranslator(AttentionSettings(3, 0.3)).eval()
    with torch.no_grad():
        source, read = translator.read(images())
        morph = translator(read, source, source[torch.tensor([1, 0])])
        alone = translator(read[:1], source[:1], source[1:])
    assert morph.object.shape == (2, 3, SIZE, SIZE)
    assert morph.object.abs().max() <= 1
    torch.testing.assert_close(morph.object[:1], alone.object, atol=1e-5, rtol=1e-4)  # pairs do not mix


def test_a_source_s_appearance_changes_the_drawing_but_not_the_flow() -> None:
    translator = ReferenceTranslator(AttentionSettings(3, 0.3)).eval()
    with torch.no_grad():
        structures, read = translator.read(images())
        first = translator(read[:1], structures[:1], structures[1:])
        second = translator(read[1:], structures[:1], structures[1:])
    assert (first.object - second.object).abs().mean() > 0.01
    torch.testing.assert_close(first.flow, second.flow)


def test_a_paper_translator_draws_images_from_instances() -> None:
    translator = PaperTranslator(AttentionSettings(2, 0.5)).eval()
    source = images()
    with torch.no_grad():
        drawn = translator(source)
        torch.testing.assert_close(drawn, translator.draw(translator.dae(source)))
    assert drawn.shape == source.shape
    assert drawn.abs().max() < 1


def test_a_structure_of_parts_that_do_not_fit_is_refused() -> None:
    with pytest.raises(TypeCheckError):
        replace(structure(cells()), masks=torch.ones(1, 2, SIDE // 2, SIDE // 2))


def test_sources_and_references_of_different_numbers_are_refused() -> None:
    one = structure(cells(), features=64)
    with pytest.raises((TypeCheckError, RuntimeError)):
        morpher()(appearance(images(1)), one, one[torch.tensor([0, 0, 0])])
