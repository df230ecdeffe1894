"""Objectives of a training step (eqs. 9 and 10) in both modes.

An objective is a module of F = DAE ∘ G and the label distance d. Its forward pass takes a batch and returns unweighted
loss terms by name, and the generated images for the discriminators.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dagaug.model.known_warps import jitter_colours
from dagaug.model.mode_translators import PaperTranslator, ReferenceTranslator, composite
from dagaug.model.networks import Appearance, Structure
from dagaug.model.task_presets import Ablation
from dagaug.training import losses
from dagaug.training.consistency_distances import Distance
from dagaug.training.pairs import PairBatch

__all__ = ["Ablation", "Fakes", "PaperObjective", "Phase", "ReferenceObjective", "frozen"]

Phase = Literal["structure", "pairs", "full"]
"""``structure``: only the structure encoder, on exact pairs; ``pairs``: class and exact pairs; ``full``: all pairs."""


class Fakes(NamedTuple):
    """Generated images for the discriminators, with the labels that they should show.

    Attributes:
        translated, translated_label: s′, for D1 (eq. 7).
        reconstructed, reconstructed_label: t′, for D2 (eq. 8).
    """

    translated: Float[Tensor, "B1 3 H W"]
    translated_label: Int[Tensor, " B1"] | None
    reconstructed: Float[Tensor, "B2 3 H W"]
    reconstructed_label: Int[Tensor, " B2"] | None


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode without gradients of their weights; restores both after the block."""
    training = [(part, part.training) for module in modules for part in module.modules()]
    gradients = [(parameter, parameter.requires_grad) for module in modules for parameter in module.parameters()]
    for module in modules:
        module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, was_training in training:
            part.training = was_training
        for parameter, grad in gradients:
            parameter.requires_grad_(grad)


class ReferenceObjective(nn.Module):
    """Objective of pose morphing: identity from s, pose from t.

    Symmetry (eq. 6) says that F maps the target domain onto itself. Here the domain of a source is its class. An image
    redrawn in the pose of another image of its class must equal that image; this holds approximately, by the labels.
    An image redrawn in the pose of a known warp of itself must equal the warp; this holds exactly.

    Args:
        translator: F = DAE ∘ G.
        distance: d, on instances of ``translator.dae.channels`` channels.
        without: parts that are switched off (Table 1a). ``dae`` removes the losses of the regions; the translator then
            has one region that covers the image.
    """

    def __init__(
        self, translator: ReferenceTranslator, distance: Distance, without: frozenset[Ablation] = frozenset()
    ) -> None:
        super().__init__()
        self.translator, self.distance, self.without = translator, distance, without

    def measure(
        self, images: Float[Tensor, "B 3 H W"], structure: Structure, appearance: Appearance
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B Y"]]:
        """Features and label logits of d, read in the attended regions."""
        attended = structure.masks.amax(1, keepdim=True) * F.interpolate(structure.object, structure.masks.shape[-2:])
        enlarged = F.interpolate(attended, images.shape[-2:], mode="bilinear")
        return self.distance(appearance.quarter * attended, images * enlarged)

    def forward(
        self, batch: PairBatch, phase: Phase, generator: torch.Generator | None = None
    ) -> tuple[dict[str, Tensor], Fakes | None]:
        """Unweighted terms by name and, in the phase ``full``, the fakes."""
        terms, source, reference = self._structure_terms(batch, generator)
        if phase == "structure":
            flow, log_match = self.translator.morpher.transport(source[batch.exact], reference[batch.exact])
            terms |= self._exact_terms(batch, flow, log_match)
            return terms, None
        appearance = self.translator.dae.appearance(batch.source, source)
        terms["label"] = self._label_term(batch, source, appearance)
        pairs = batch.known if phase == "pairs" else slice(None)
        morph = self.translator(appearance[pairs], source[pairs], reference[pairs])
        result = composite(morph, batch.background[pairs])
        terms |= self._exact_terms(batch, morph.flow[batch.exact], morph.log_match[batch.exact])
        known = batch.known
        terms["mask"] = losses.object_loss(torch.logit(morph.mask[known], eps=1e-4), batch.reference_mask[known])
        if "sym" not in self.without:
            terms["symmetry"] = losses.symmetry_loss(
                batch.reference[known], morph.object[known], batch.reference_mask[known]
            )
            terms["detail"] = losses.detail_loss(batch.reference[known], result[known], batch.reference_mask[known])
        if phase == "pairs":
            return terms, None
        cross = batch.cross
        translated = result[cross]
        terms |= self._translated_terms(batch, translated, source[cross], appearance[cross], reference[cross])
        if "cst" not in self.without:
            terms["silhouette"] = losses.object_loss(
                torch.logit(morph.mask[cross], eps=1e-4), batch.reference_mask[cross]
            )
        fakes = Fakes(translated, batch.source_label[cross], result[known], batch.reference_label[known])
        return terms, fakes

    def _structure_terms(
        self, batch: PairBatch, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Structure, Structure]:
        both = torch.cat([batch.source, batch.reference])
        structure, logits = self.translator.dae.structure(jitter_colours(both, generator=generator))
        count = len(batch.source)
        source, reference = structure[:count], structure[count:]
        masks = torch.cat([batch.source_mask, batch.reference_mask])
        terms = {"object": losses.object_loss(logits, masks)}
        if "dae" not in self.without:
            terms["equivariance"] = losses.equivariance_loss(
                reference.centres[batch.exact], source.centres[batch.exact], batch.grid
            )
            terms["separation"] = losses.separation_loss(structure.centres)
            terms["inside"] = losses.inside_loss(structure.centres, masks)
        return terms, source, reference

    def _exact_terms(self, batch: PairBatch, flow: Tensor, log_match: Tensor) -> dict[str, Tensor]:
        return {
            "flow": losses.flow_loss(flow, batch.grid, batch.seen),
            "match": losses.correspondence_loss(log_match, batch.grid, batch.seen),
        }

    def _label_term(self, batch: PairBatch, source: Structure, appearance: Appearance) -> Tensor:
        _, scores = self.measure(batch.source, source, appearance)
        return self.distance.label_loss(scores, batch.source_label)

    def _translated_terms(
        self,
        batch: PairBatch,
        translated: Tensor,
        source: Structure,
        appearance: Appearance,
        reference: Structure,
    ) -> dict[str, Tensor]:
        """Terms for the source's identity and the reference's pose of s′, measured by frozen DAE and d."""
        cross = batch.cross
        terms: dict[str, Tensor] = {}
        with frozen(self.translator, self.distance):
            structure, _ = self.translator.dae.structure(translated)
            read = self.translator.dae.appearance(translated, structure)
            features, scores = self.measure(translated, structure, read)
            terms["identity"] = self.distance.label_loss(scores, batch.source_label[cross])
            if "cst" not in self.without:
                expected, _ = self.measure(batch.source[cross], source, appearance)
                terms["consistency"] = losses.consistency_loss(expected.detach(), features)
                mask = F.interpolate(batch.reference_mask[cross], reference.keys.shape[-2:], mode="area")
                terms["pose"] = losses.pose_loss(
                    reference.centres.detach(), structure.centres, reference.keys.detach(), structure.keys, mask
                )
        if "cst" not in self.without:
            back = self.translator(read, structure, source)
            terms["cycle"] = losses.symmetry_loss(batch.source[cross], back.object, batch.source_mask[cross])
        return terms


class PaperObjective(nn.Module):
    """The paper's objective: s′ = G(DAE(s)) and t′ = G(DAE(t)), without reference (Sec. 3.2 to 3.4, Fig. 2).

    Args:
        translator: F = DAE ∘ G.
        distance: d, on the concatenated instances.
        labelled: whether the images have labels; otherwise there is no term d(Y, ·) (Table 4, "None").
        without: parts that are switched off (Table 1a), as in :class:`ReferenceObjective`.
    """

    def __init__(
        self,
        translator: PaperTranslator,
        distance: Distance,
        *,
        labelled: bool,
        without: frozenset[Ablation] = frozenset(),
    ) -> None:
        super().__init__()
        self.translator, self.distance = translator, distance
        self.labelled, self.without = labelled, without

    def forward(
        self,
        source: Float[Tensor, "B 3 H W"],
        target: Float[Tensor, "B 3 H W"],
        source_label: Int[Tensor, " B"] | None,
        target_label: Int[Tensor, " B"] | None,
    ) -> tuple[dict[str, Tensor], Fakes]:
        """Unweighted terms by name, and the fakes."""
        count = len(source)
        both = torch.cat([source, target])
        instances = self.translator.dae(both)
        features, scores = self.distance(instances, self._attended(both))
        drawn = self.translator.draw(instances)
        translated, reconstructed = drawn[:count], drawn[count:]
        terms: dict[str, Tensor] = {}
        labels = None
        if self.labelled and source_label is not None and target_label is not None:
            labels = torch.cat([source_label, target_label])
            terms["label"] = self.distance.label_loss(scores, labels)  # Sec. 3.1
        with frozen(self.translator, self.distance):
            again, again_scores = self.distance(self.translator.dae(translated), self._attended(translated))
        if "cst" not in self.without:
            terms["consistency"] = losses.consistency_loss(features[:count].detach(), again)  # eq. 5
        if labels is not None:
            terms["identity"] = self.distance.label_loss(again_scores, labels[:count])
        if "sym" not in self.without:
            terms["symmetry"] = losses.symmetry_loss(target, reconstructed)  # eq. 6
        return terms, Fakes(translated, source_label, reconstructed, target_label)

    def _attended(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        if not self.distance.reads_image:
            return images
        structure, _ = self.translator.dae.structure(images)
        masks = self.translator.dae.masks(structure.centres, images.shape[-1])
        return images * masks.amax(1, keepdim=True)
