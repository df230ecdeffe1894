"""Train the networks that dagaug's trainings start from: dagaug/model/general.safetensors.

    python examples/pretrain.py general.safetensors              # renders 12,000 pairs, then 4,500 steps

They learn to morph one species into the pose of another on procedural creatures with rendered true answers
(dagaug/training/creature_pairs.py); no photographs and none of the built-in birds are used. Three of four pairs are
creatures; the others are known warps of creatures, as in dagaug's training. Every 500 steps an image of source,
reference, answer and morph is written beside the output.
"""

from __future__ import annotations

import copy
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from rich.progress import track
from torch import Tensor, nn

from dagaug.compute.tensors import to_pixels
from dagaug.data.object_patches import Framing
from dagaug.model import checkpoint
from dagaug.model.known_warps import jitter_colours
from dagaug.model.mode_translators import ReferenceTranslator, composite
from dagaug.model.networks import Structure
from dagaug.model.task_presets import PRESETS
from dagaug.model.trained_model import ModelCard, save_model
from dagaug.training import losses
from dagaug.training.creature_pairs import CreaturePairs, creature_pairs
from dagaug.training.pairs import step_generator, warped_pairs

SIZE = 64
SHARD = 256  # pairs rendered from one seed
WEIGHTS = {
    "object": 1.0, "equivariance": 0.3, "separation": 0.5, "inside": 0.7, "flow": 2.0, "match": 0.3, "mask": 0.5,
    "symmetry": 2.0,
}  # fmt: skip
PRESET = PRESETS["pose"]


def draw_shard(number: int) -> dict[str, np.ndarray]:
    """Render pairs; images as bytes and grids in 16 bits, to save memory."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(number)
    parts = [creature_pairs(8, SIZE, generator=generator) for _ in range(SHARD // 8)]
    small = {}
    for field in fields(CreaturePairs):
        values = torch.cat([getattr(part, field.name) for part in parts])
        if field.name == "grid":
            small[field.name] = values.half().numpy()
        elif values.shape[1] == 3:
            small[field.name] = ((values + 1) * 127.5).round().byte().numpy()
        else:
            small[field.name] = (values * 255).round().byte().numpy()
    return small


class Pool:
    """Pairs to draw batches from, with permuted colour channels and random mirroring."""

    def __init__(self, shards: list[dict[str, np.ndarray]]) -> None:
        self.columns = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}

    def batch(self, count: int, seed: int) -> CreaturePairs:
        """Random pairs with permuted channels, half of them mirrored."""
        rng = np.random.default_rng(seed)
        rows = rng.integers(len(self.columns["grid"]), size=count)
        order = torch.from_numpy(rng.permuted(np.tile(np.arange(3), (count, 1)), axis=1))[:, :, None, None]
        mirrored = torch.from_numpy(rng.random(count) < 0.5)[:, None, None, None]
        found: dict[str, Tensor] = {}
        for name, column in self.columns.items():
            values = torch.from_numpy(column[rows]).float()
            if name == "grid":
                found[name] = torch.where(mirrored, values.flip(2) * torch.tensor([-1.0, 1.0]), values)
                continue
            colours = values.shape[1] == 3
            values = (values / 127.5 - 1).gather(1, order.expand_as(values)) if colours else values / 255
            found[name] = torch.where(mirrored, values.flip(-1), values)
        return CreaturePairs(**found)


def terms_of(
    translator: ReferenceTranslator, pairs: CreaturePairs, warped: int, generator: torch.Generator, *, alone: bool
) -> dict[str, Tensor]:
    """Loss terms of creatures, and of known warps of the first ``warped`` ones; ``alone`` trains the structure only."""
    exact = warped_pairs(
        pairs.source[:warped], pairs.source_mask[:warped], pairs.background[:warped], generator=generator
    )
    images = torch.cat([pairs.source, pairs.reference, exact.reference])
    masks = torch.cat([pairs.source_mask, pairs.reference_mask, exact.reference_mask])
    structure, logits = translator.dae.structure(jitter_colours(images, generator=generator))
    count = len(pairs.source)
    source, reference, moved = structure[:count], structure[count : 2 * count], structure[2 * count :]
    terms = {
        "object": losses.object_loss(logits, masks),
        "equivariance": losses.equivariance_loss(moved.centres, source.centres[:warped], exact.grid),
        "separation": losses.separation_loss(structure.centres),
        "inside": losses.inside_loss(structure.centres, masks),
    }
    sources = Structure.joined([source, source[:warped]])
    references = Structure.joined([reference, moved])
    if alone:
        flow, log_match = translator.morpher.transport(sources, references)
    else:
        rows = torch.cat([torch.arange(count), torch.arange(warped)])
        morph = translator(translator.dae.appearance(pairs.source, source)[rows], sources, references)
        flow, log_match = morph.flow, morph.log_match
        answer_mask = torch.cat([pairs.answer_mask, exact.reference_mask])
        terms["mask"] = losses.object_loss(torch.logit(morph.mask, eps=1e-4), answer_mask)
        terms["symmetry"] = losses.symmetry_loss(torch.cat([pairs.answer, exact.reference]), morph.object, answer_mask)
    grids, seen = torch.cat([pairs.grid, exact.grid]), torch.cat([pairs.seen, exact.seen])
    terms["flow"] = losses.flow_loss(flow, grids, seen)
    terms["match"] = losses.correspondence_loss(log_match, grids, seen)
    return terms


@torch.no_grad()
def average(mean: nn.Module, now: nn.Module, decay: float) -> None:
    """Update the moving average of the weights."""
    for old, new in zip(mean.state_dict().values(), now.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


@torch.no_grad()
def recalibrated(averaged: ReferenceTranslator, pool: Pool) -> ReferenceTranslator:
    """A copy with newly measured batch-norm statistics."""
    translator = copy.deepcopy(averaged).train()
    for module in translator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for number in range(20):
        pairs = pool.batch(16, 10**6 + number)
        source, appearance = translator.read(pairs.source)
        translator(appearance, source, translator.read(pairs.reference)[0])
    return translator.eval()


@torch.no_grad()
def sheet(translator: ReferenceTranslator, pool: Pool) -> np.ndarray:
    """A picture of source, reference, answer and morph of some pairs."""
    pairs = pool.batch(24, 2 * 10**6)
    source, appearance = translator.read(pairs.source)
    morph = composite(translator(appearance, source, translator.read(pairs.reference)[0]), pairs.background)
    rows = to_pixels(torch.cat([pairs.source, pairs.reference, pairs.answer, morph], 3))
    return np.concatenate([np.concatenate(list(rows[first::3])) for first in range(3)], 1)


def main(
    out: Path,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 4500,
    pairs: Annotated[int, typer.Option(help="Number of creature pairs to render.")] = 12_000,
    workers: Annotated[int, typer.Option(help="Number of rendering processes.")] = 2,
) -> None:
    """Render creatures, train on them, write the networks."""
    out.parent.mkdir(parents=True, exist_ok=True)
    shards = max(pairs // SHARD, 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool_of_workers:
        drawn = list(track(pool_of_workers.map(draw_shard, range(shards)), "Rendering creatures", shards))
    pool = Pool(drawn)
    torch.manual_seed(0)
    translator = ReferenceTranslator(PRESET.attention)
    averaged = copy.deepcopy(translator).requires_grad_(False)
    optimizer = torch.optim.Adam(translator.parameters(), PRESET.learning_rate, betas=PRESET.betas)
    for step in track(range(steps), "Training"):
        share = step / steps
        for group in optimizer.param_groups:
            group["lr"] = PRESET.learning_rate * min(1.0, (step + 1) / 100, max(0.02, (1 - share) / 0.5))
        alone = share < 0.2
        with torch.autocast("cpu", torch.bfloat16):
            terms = terms_of(
                translator, pool.batch(18 if alone else 12, step), 6 if alone else 4, step_generator(0, step),
                alone=alone,
            )  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        losses.full_objective(terms, WEIGHTS).backward()
        nn.utils.clip_grad_norm_(translator.parameters(), 5.0)
        optimizer.step()
        average(averaged, translator, min(0.998, (1 + step) / (10 + step)))
        if (step + 1) % 500 == 0 or step + 1 == steps:
            print(step + 1, {name: round(float(term.detach()), 3) for name, term in terms.items()})
            ready = recalibrated(averaged, pool)
            cv2.imwrite(str(out.with_suffix(f".{step + 1:05d}.png")), sheet(ready, pool)[:, :, ::-1])
    card = ModelCard(
        mode="reference", classes=(), framing=Framing(size=SIZE), regions=PRESET.attention.regions,
        half_size=PRESET.attention.half_size, sharpness=PRESET.attention.sharpness, steps=steps, seed=0,
        data="creatures",
    )  # fmt: skip
    halves = {name: value.half() if value.is_floating_point() else value for name, value in ready.state_dict().items()}
    save_model(out, card, halves)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, SHA-256 {checkpoint.sha256(out)}")


if __name__ == "__main__":
    typer.run(main)
