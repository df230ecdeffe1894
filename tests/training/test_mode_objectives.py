"""The objectives: their terms, the networks that each term trains, and frozen judges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from dagaug.model.known_warps import identity_grid
from dagaug.model.mode_translators import PaperTranslator, ReferenceTranslator
from dagaug.model.task_presets import AttentionSettings
from dagaug.training.consistency_distances import BackboneDistance, Distance, ResidualDistance, SquaredDistance
from dagaug.training.mode_objectives import Ablation, Fakes, PaperObjective, Phase, ReferenceObjective
from dagaug.training.pairs import PairBatch, PairSampler, TrainingData

SIZE = 32
CLASSES = 3
REGIONS = 2
STRUCTURE = {"object", "equivariance", "separation", "inside", "flow", "match"}
PAIRS = STRUCTURE | {"label", "mask", "symmetry", "detail"}
FULL = PAIRS | {"identity", "consistency", "pose", "cycle", "silhouette"}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch(size: int = 8, *, only_exact: bool = False) -> PairBatch:
    """A step's pairs of discs in random images."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (2, 9, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    images, behind = pixels.permute(0, 1, 3, 4, 2).numpy()
    disc = (identity_grid(SIZE).square().sum(-1) < 0.4).to(torch.uint8) * 255
    labels = torch.arange(9) % CLASSES
    data = TrainingData(images, behind, disc.expand(9, SIZE, SIZE).clone().numpy(), labels)
    return PairSampler(data, 0).batch(0, size, only_exact=only_exact)


class _Backbone(nn.Module):
    """A network as timm makes them: pooled features of an image, with dropout and batch norm inside."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((-1, -2))


def distance(name: str, channels: int) -> Distance:
    return {
        "resblock": lambda: ResidualDistance(channels, CLASSES),
        "l2": lambda: SquaredDistance(channels, CLASSES),
        "timm": lambda: BackboneDistance(_Backbone(), 6, CLASSES),
    }[name]()


def reference_objective(name: str = "resblock", without: frozenset[Ablation] = frozenset()) -> ReferenceObjective:
    translator = ReferenceTranslator(AttentionSettings(REGIONS, 0.3))
    return ReferenceObjective(translator, distance(name, translator.dae.channels), without)


def paper_objective(
    name: str = "resblock", *, labelled: bool = True, without: frozenset[Ablation] = frozenset()
) -> PaperObjective:
    translator = PaperTranslator(AttentionSettings(REGIONS, 0.5))
    return PaperObjective(
        translator, distance(name, REGIONS * translator.dae.channels), labelled=labelled, without=without
    )


def domains(count: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source, target = 2 * torch.rand(2, count, 3, SIZE, SIZE) - 1
    labels = torch.arange(count) % CLASSES
    return source, target, labels, labels.flip(0)


def untrained(module: nn.Module) -> set[str]:
    """Parameters that no gradient reaches."""
    return {name for name, parameter in module.named_parameters() if parameter.grad is None or not parameter.grad.any()}


def awake(objective: ReferenceObjective) -> ReferenceObjective:
    """With a refinement that has left its zeros, behind which nothing gets a gradient."""
    last = objective.translator.morpher.transport.to_half[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.normal_(last.weight, std=0.1)
    return objective


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


# ---- d (Sec. 3.1, Table 4)


@pytest.mark.parametrize("name", ["resblock", "l2", "timm"])
def test_every_distance_gives_features_and_one_score_a_class(name: str) -> None:
    features, scores = distance(name, 5)(torch.randn(4, 5, 8, 8), torch.randn(4, 3, SIZE, SIZE))
    assert features.ndim == 2
    assert scores.shape == (4, CLASSES)


def test_the_squared_label_loss_is_the_squared_distance_to_the_one_hot_label() -> None:
    """Against (1, 0, 0) and (0, 0, 1): 0 + 4 + 1, and nothing."""
    scores = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 1.0]])
    assert SquaredDistance(4, 3).label_loss(scores, torch.tensor([0, 2])).item() == pytest.approx((5 + 0) / 2)


def test_the_squared_distance_s_features_are_the_instances_themselves() -> None:
    instances = torch.randn(2, 5, 4, 4)
    features, _ = SquaredDistance(5, CLASSES)(instances, torch.zeros(2, 3, SIZE, SIZE))
    assert torch.equal(features, instances.flatten(1))


def test_a_backbone_reads_the_attended_image_and_not_the_instances() -> None:
    d = distance("timm", 5).eval()
    attended = torch.randn(2, 3, SIZE, SIZE)
    first, second = (d(torch.randn(2, 5, 8, 8), attended)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, d(torch.zeros(2, 5, 8, 8), attended + 1)[0])


# ---- reference mode


@pytest.mark.parametrize(("phase", "names"), [("structure", STRUCTURE), ("pairs", PAIRS), ("full", FULL)])
def test_each_phase_has_its_terms_and_all_are_finite(phase: Phase, names: set[str]) -> None:
    terms, fakes = reference_objective()(batch(only_exact=phase == "structure"), phase)
    assert set(terms) == names
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())
    assert (fakes is None) == (phase != "full")


@pytest.mark.parametrize(
    ("part", "terms"),
    [
        ("dae", {"equivariance", "separation", "inside"}),
        ("cst", {"consistency", "pose", "cycle", "silhouette"}),
        ("sym", {"symmetry", "detail"}),
        ("d2", set()),
    ],
)
def test_without_a_part_exactly_its_terms_are_gone(part: Ablation, terms: set[str]) -> None:
    """D2's terms are the training loop's, which judges the fakes."""
    left, _ = reference_objective(without=frozenset({part}))(batch(), "full")
    assert set(left) == FULL - terms


def test_the_fakes_are_the_cross_pairs_and_the_pairs_with_an_answer() -> None:
    made = batch()
    _, fakes = reference_objective()(made, "full")
    assert isinstance(fakes, Fakes)
    assert len(fakes.translated) == len(made.source[made.cross])
    assert len(fakes.reconstructed) == len(made.source[made.known])
    assert fakes.translated_label is not None
    assert fakes.reconstructed_label is not None
    assert torch.equal(fakes.translated_label, made.source_label[made.cross])  # s′ must have the source's class
    assert torch.equal(fakes.reconstructed_label, made.reference_label[made.known])


def test_a_fake_that_shows_no_object_is_the_reference_s_background() -> None:
    """But for the 0.7% that are the least a mask can be."""
    objective, made = reference_objective(), batch()
    drawn = objective.translator.morpher.generator.last
    found = objective.translator.dae.structure_encoder.object[-1]
    assert isinstance(found, nn.Conv2d)
    for last, channel in (drawn, 4), (found, 0):  # the masks'
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias[channel] = -40.0
    _, fakes = objective(made, "full")
    torch.testing.assert_close(fakes.translated, made.background[made.cross], atol=0.015, rtol=0)
    torch.testing.assert_close(fakes.reconstructed, made.background[made.known], atol=0.015, rtol=0)


@pytest.mark.parametrize("name", ["resblock", "l2", "timm"])
def test_in_the_full_phase_every_parameter_of_f_and_d_gets_a_gradient(name: str) -> None:
    """Single weights behind a ReLU can rest for a batch; no whole tensor does."""
    objective = awake(reference_objective(name))
    terms, _ = objective(batch(), "full")
    total(terms).backward()
    assert untrained(objective) == set()


def test_in_the_structure_phase_only_what_reads_structure_gets_a_gradient() -> None:
    objective = awake(reference_objective())
    terms, _ = objective(batch(only_exact=True), "structure")
    total(terms).backward()
    trained = {name for name, _ in objective.named_parameters()} - untrained(objective)
    parts = {".".join(name.split(".")[:3]) for name in trained}
    assert parts == {
        "translator.dae.structure_encoder",
        "translator.dae.localise",
        "translator.morpher.transport",
    }
    assert all(name in trained for name, _ in objective.named_parameters() if ".structure_encoder." in name)


def test_the_fakes_carry_a_gradient_to_the_generator_and_the_structure() -> None:
    objective = reference_objective()
    _, fakes = objective(batch(), "full")
    fakes.translated.square().sum().backward()
    left = untrained(objective)
    assert "translator.morpher.generator.last.weight" not in left
    assert "translator.dae.structure_encoder.keys.weight" not in left


@pytest.mark.parametrize("term", ["identity", "consistency", "pose"])
def test_what_judges_a_translation_does_not_learn_from_it(term: str) -> None:
    """d gets no gradient from these terms, G does; the wanted side of a comparison gets none either."""
    objective = reference_objective()
    terms, _ = objective(batch(), "full")
    terms[term].backward()
    assert all(parameter.grad is None for parameter in objective.distance.parameters())
    assert "translator.morpher.generator.last.weight" not in untrained(objective)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_frozen_leaves_flags_as_they_were() -> None:
    """Also of a part that is frozen and in evaluation mode while the rest is in training."""
    objective = reference_objective("timm")
    assert isinstance(objective.distance, BackboneDistance)
    objective.distance.backbone.eval().requires_grad_(False)
    training = {name: module.training for name, module in objective.named_modules()}
    wanted = {name: parameter.requires_grad for name, parameter in objective.named_parameters()}
    assert len(set(training.values())) == len(set(wanted.values())) == 2
    objective(batch(), "full")
    assert {name: module.training for name, module in objective.named_modules()} == training
    assert {name: parameter.requires_grad for name, parameter in objective.named_parameters()} == wanted


@pytest.mark.parametrize("name", ["resblock", "timm"])
def test_frozen_leaves_running_statistics_as_they_were(name: str) -> None:
    """They may learn from real images alone: d reads the sources, and twice if it read the fakes."""
    objective = reference_objective(name)
    objective(batch(), "full")
    counts = {
        buffer: int(value)
        for buffer, value in objective.distance.named_buffers()
        if buffer.endswith("num_batches_tracked")
    }
    assert counts
    assert set(counts.values()) == {1}
    encoders = objective.translator.dae.named_buffers()
    assert {int(value) for buffer, value in encoders if buffer.endswith("num_batches_tracked")} == {1}


def test_an_objective_in_evaluation_mode_changes_no_buffer() -> None:
    objective = reference_objective().eval()
    before = state(objective)
    objective(batch(), "full")
    assert all(torch.equal(before[name], tensor) for name, tensor in objective.state_dict().items())


def test_the_same_generator_gives_the_same_terms() -> None:
    objective, made = reference_objective().eval(), batch()
    first, again, other = (objective(made, "pairs", torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["flow"] != other["flow"]


def test_d_reads_nothing_that_is_not_attended() -> None:
    """No object, no features: an image whose object is nowhere says the same as any other."""
    objective = reference_objective("timm").eval()
    made = batch()
    structure, read = objective.translator.read(made.source)
    nowhere = replace(structure, object=torch.zeros_like(structure.object))
    features, scores = objective.measure(made.source, nowhere, read)
    torch.testing.assert_close(features, features[:1].expand_as(features))
    torch.testing.assert_close(scores, scores[:1].expand_as(scores))


# ---- paper mode


@pytest.mark.parametrize("name", ["resblock", "l2", "timm"])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_paper_s_objective_runs_with_and_without_labels(name: str, labelled: bool) -> None:
    source, target, source_label, target_label = domains()
    objective = paper_objective(name, labelled=labelled)
    labels = (source_label, target_label) if labelled else (None, None)
    terms, fakes = objective(source, target, *labels)
    assert set(terms) == {"consistency", "symmetry"} | ({"label", "identity"} if labelled else set())
    assert all(term.isfinite() for term in terms.values())
    assert fakes.translated.shape == fakes.reconstructed.shape == source.shape
    assert (fakes.translated_label is None) == (not labelled)


@pytest.mark.parametrize(("part", "terms"), [("cst", {"consistency"}), ("sym", {"symmetry"}), ("d2", set())])
def test_without_a_part_the_paper_s_objective_lacks_exactly_its_terms(part: Ablation, terms: set[str]) -> None:
    left, _ = paper_objective(without=frozenset({part}))(*domains())
    assert set(left) == {"label", "identity", "consistency", "symmetry"} - terms


def test_the_paper_s_fakes_are_f_of_the_source_and_f_of_the_target() -> None:
    objective = paper_objective().eval()
    source, target, source_label, target_label = domains()
    _, fakes = objective(source, target, source_label, target_label)
    torch.testing.assert_close(fakes.translated, objective.translator(source), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fakes.reconstructed, objective.translator(target), atol=1e-5, rtol=1e-4)


def test_the_paper_s_terms_train_encoder_localisation_generator_and_d() -> None:
    objective = paper_objective()
    terms, _ = objective(*domains())
    total(terms).backward()
    left = untrained(objective)
    heads = ("structure_encoder.keys", "structure_encoder.object", "structure_encoder.back_to_half")
    assert {name for name in left if not any(head in name for head in heads)} == set()


def test_the_paper_s_judges_stay_as_they_were() -> None:
    objective = paper_objective("timm")
    assert isinstance(objective.distance, BackboneDistance)
    objective.distance.backbone.eval().requires_grad_(False)
    flags = {name: module.training for name, module in objective.named_modules()}
    objective(*domains())
    assert {name: module.training for name, module in objective.named_modules()} == flags
    assert all(parameter.requires_grad for parameter in objective.translator.parameters())
    assert not any(parameter.requires_grad for parameter in objective.distance.backbone.parameters())


def test_domains_of_different_sizes_are_refused() -> None:
    source, _, labels, _ = domains()
    with pytest.raises(TypeCheckError):
        paper_objective()(source, torch.zeros(4, 3, 2 * SIZE, 2 * SIZE), labels, labels)
