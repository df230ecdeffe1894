"""The engine: same morphs in any batches, unchanged backgrounds, the right judge, smaller batches without memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making_engines import ALL, COUNT, PLAN, assert_close, columns_of, new_engine
from making_runs import SIZE
from torch import nn

from dagaug.augment.engine import Engine, MorphBatch
from dagaug.augment.morph_plan import DEFAULT_VARIANTS, VARIANTS, random_plan
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute import devices
from dagaug.compute.tensors import to_pixels, to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.model.known_warps import identity_grid
from dagaug.model.mode_translators import Morph, ReferenceTranslator
from dagaug.model.trained_model import load_model


@pytest.fixture(scope="module")
def engine(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    return new_engine(birds_run, patches, judges, tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def morphs(engine: Engine) -> MorphBatch:
    return engine.morph(PLAN, ALL)


def test_every_candidate_of_the_plan_is_made_and_judged(morphs: MorphBatch, birds: Dataset) -> None:
    assert morphs.images.shape == (len(PLAN), SIZE, SIZE, 3)
    assert morphs.cover.shape == morphs.objects.shape == (len(PLAN), SIZE, SIZE)
    assert (morphs.objects <= morphs.cover).all()
    assert morphs.probabilities.shape == (len(PLAN), len(birds.classes))
    np.testing.assert_allclose(morphs.probabilities.sum(1), 1, rtol=1e-5)


def test_a_part_of_the_plan_gives_the_same_bits_twice_and_the_rows_of_the_whole(
    engine: Engine, morphs: MorphBatch
) -> None:
    part = slice(4, 12)
    some = engine.morph(PLAN, part)
    np.testing.assert_array_equal(some.images, engine.morph(PLAN, part).images)
    assert_close(some, MorphBatch(*(column[part] for column in columns_of(morphs))))


def test_the_order_of_candidates_in_a_batch_changes_no_bit(engine: Engine, morphs: MorphBatch) -> None:
    order = np.random.default_rng(0).permutation(len(PLAN))
    columns = {name: getattr(PLAN, name)[order] for name in ("source", "reference", "variant")}
    turned = engine.morph(replace(PLAN, **columns), ALL)
    for name in ("images", "cover", "objects", "probabilities"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(morphs, name)[order])


def test_the_size_of_batches_does_not_matter(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path, morphs: MorphBatch
) -> None:
    assert_close(new_engine(birds_run, patches, judges, tmp_path, batch_size=5).morph(PLAN, ALL), morphs)


def test_a_morph_is_what_the_translator_draws_of_source_and_reference(
    engine: Engine, morphs: MorphBatch, patches: np.ndarray
) -> None:
    """One pair at a time, without the table of encodings."""
    for row in (0, 1):
        source = to_tensor(patches[PLAN.source[row]][None], engine.device)
        reference = to_tensor(patches[PLAN.reference[row]][None], engine.device)
        if VARIANTS[PLAN.variant[row]] == "mirror":
            reference = reference.flip(-1)
        with torch.inference_mode():
            structure, appearance = engine.translator.read(source)
            wanted, _ = engine.translator.dae.structure(reference)
            drawn = engine.translator(appearance, structure, wanted)
        inside = drawn.mask[0, 0].numpy() > 0.999
        np.testing.assert_allclose(
            morphs.images[row].astype(int)[inside], to_pixels(drawn.object)[0].astype(int)[inside], atol=1
        )
    assert {VARIANTS[code] for code in PLAN.variant[:2]} == set(DEFAULT_VARIANTS)


def test_where_nothing_is_covered_the_patch_is_the_reference_to_the_bit(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path
) -> None:
    """With objects that are discs, on the reference and in the morph."""
    disc = (identity_grid(SIZE).square().sum(-1) < 0.2).float().expand(1, 1, SIZE, SIZE)

    def structure(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        features, keys, logits = outputs
        return features, keys, 40 * disc.expand_as(logits) - 20

    def drawn(module: nn.Module, inputs: Any, morph: Morph) -> Morph:
        return replace(morph, mask=disc.expand_as(morph.mask))

    translator = load_model(birds_run).translator
    assert isinstance(translator, ReferenceTranslator)
    translator.dae.structure_encoder.register_forward_hook(structure)
    translator.register_forward_hook(drawn)
    morphs = new_engine(birds_run, patches, judges, tmp_path, translator=translator).morph(PLAN, ALL)
    for row, reference in enumerate(patches[PLAN.reference]):
        shown = reference[:, ::-1] if VARIANTS[PLAN.variant[row]] == "mirror" else reference
        free = morphs.cover[row] == 0
        assert 0.3 < free.mean() < 0.9
        np.testing.assert_array_equal(morphs.images[row][free], shown[free])
        assert (morphs.cover[row][disc[0, 0].bool().numpy()] == 255).all()


def test_a_morph_is_judged_by_the_classifier_not_trained_on_its_source(morphs: MorphBatch, judges: CrossFitted) -> None:
    # whole pixels are judged here, unrounded values there
    each = [classifier.probabilities(morphs.images) for classifier in judges.classifiers]
    for row, source in enumerate(PLAN.source):
        right, wrong = each[source % 2][row], each[1 - source % 2][row]
        assert np.abs(morphs.probabilities[row] - right).max() < np.abs(morphs.probabilities[row] - wrong).max()


def test_a_part_without_candidates_gives_none(engine: Engine) -> None:
    nothing = engine.morph(PLAN, slice(2, 2))
    assert len(nothing.images) == len(nothing.cover) == len(nothing.probabilities) == 0


def test_no_batch_size_means_what_suits_the_device(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path, morphs: MorphBatch
) -> None:
    engine = new_engine(birds_run, patches, judges, tmp_path, batch_size=None)
    assert_close(engine.morph(PLAN, ALL), morphs)
    assert engine.batch_size == devices.batch_size_for(torch.device("cpu"), lambda count: None)


# ---- out of memory


def short_of_memory(engine: Engine, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """Let batches of more than ``most`` candidates fail; returns the sizes that went through."""
    sizes: list[int] = []
    whole = engine._generate

    def limited(sources: Any, index: np.ndarray, *more: Any) -> Any:
        if len(index) > most:
            raise error
        sizes.append(len(index))
        return whole(sources, index, *more)

    monkeypatch.setattr(engine, "_generate", limited)
    return sizes


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
@pytest.mark.parametrize("most", [1, 5])
def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does(
    engine: Engine, morphs: MorphBatch, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception
) -> None:
    sizes = short_of_memory(engine, monkeypatch, most, error)
    assert_close(engine.morph(PLAN, ALL), morphs)
    assert sum(sizes) == len(PLAN)
    assert max(sizes) <= most


def test_memory_that_does_not_suffice_for_one_candidate_is_an_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(engine, monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        engine.morph(PLAN, ALL)


def test_other_errors_are_not_taken_for_a_lack_of_memory(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = short_of_memory(engine, monkeypatch, 5, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        engine.morph(PLAN, ALL)
    assert sizes == []


def test_a_plan_of_mirrors_alone_is_made(engine: Engine) -> None:
    plan = random_plan(COUNT, refs=1, variants=("mirror",), seed=0)
    both = random_plan(COUNT, refs=1, variants=DEFAULT_VARIANTS, seed=0)
    mirrors = np.flatnonzero(both.variant == VARIANTS.index("mirror"))
    whole = engine.morph(both, slice(0, len(both)))
    assert_close(
        engine.morph(plan, slice(0, len(plan))),
        MorphBatch(*(column[mirrors] for column in columns_of(whole))),
    )
