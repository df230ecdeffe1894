"""Objective of a training on frozen features (eqs. 9 and 10): keys and regions first, then G.

The phase ``structure`` trains the keys and f_loc. Exact pairs have a true correspondence; other pairs take the one that
the frozen features give as their label, if enough of it is mutual. Later phases leave keys and regions as they are and
train the stem, G and d.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dagaug.model.correspondence import refine_flow, similarities
from dagaug.model.frozen_encoder_translator import FeatureTranslator
from dagaug.model.mode_translators import Morph, composite
from dagaug.model.networks import resize
from dagaug.model.training_free import spread_objects
from dagaug.training import losses
from dagaug.training.consistency_distances import Distance
from dagaug.training.frozen_feature_pairs import FeatureBatch
from dagaug.training.mode_objectives import Ablation, Fakes, Phase, frozen

__all__ = ["FeatureObjective"]

_SHARPNESS = 20.0  # of the softmax of cosine similarities: 1 / the temperature of dagaug.model.correspondence
_TAUGHT = 0.7  # share of the other pairs, those with the most mutual neighbours, whose flow serves as label
_CLASS_CELL = 4  # class pairs agree only in the mean of so many pixels: two animals, two lights


class FeatureObjective(nn.Module):
    """Objective of pose morphing on a frozen encoder.

    Args:
        translator: F.
        distance: d, on instances of ``translator.dae.channels`` channels.
        without: parts that are switched off (Table 1a), as in
            :class:`dagaug.training.mode_objectives.ReferenceObjective`.
    """

    def __init__(
        self, translator: FeatureTranslator, distance: Distance, without: frozenset[Ablation] = frozenset()
    ) -> None:
        super().__init__()
        self.translator, self.distance, self.without = translator, distance, without

    def forward(self, batch: FeatureBatch, phase: Phase) -> tuple[dict[str, Tensor], Fakes | None]:
        """Unweighted terms by name and, in the phase ``full``, the fakes."""
        if phase == "structure":
            return self._structure_terms(batch), None
        keys = self._keys(batch)
        wanted = batch.known if phase == "pairs" else slice(None)
        morph = self._morph(batch, keys, wanted)
        result = composite(morph, batch.background[wanted])
        terms = self._known_terms(batch, morph, result)
        terms["label"] = self._label_term(batch)
        if phase == "pairs":
            return terms, None
        cross, known = batch.cross, batch.known
        terms |= self._translated_terms(batch, keys, result[cross])
        fakes = Fakes(result[cross], batch.source_label[cross], result[known], batch.reference_label[known])
        return terms, fakes

    # keys and regions

    def _structure_terms(self, batch: FeatureBatch) -> dict[str, Tensor]:
        dae, exact = self.translator.dae, batch.exact
        source, reference = dae.head(batch.source_components), dae.head(batch.reference_components)
        log_match = (_SHARPNESS * similarities(reference, source)).log_softmax(-1)
        made = batch.exact_pairs
        terms = {"match": losses.correspondence_loss(log_match[exact], made.grid, made.seen)}
        if batch.teacher is not None:
            terms["taught"] = self._taught_term(batch, log_match)
        if "dae" not in self.without:
            centres = dae.centres(torch.cat([source, reference]))
            count = len(source)
            masks = torch.cat([batch.source_mask, batch.reference_mask])
            terms["equivariance"] = losses.equivariance_loss(centres[count:][exact], centres[:count][exact], made.grid)
            terms["separation"] = losses.separation_loss(centres)
            terms["inside"] = losses.inside_loss(centres, masks)
        return terms

    def _taught_term(self, batch: FeatureBatch, log_match: Float[Tensor, "B n n"]) -> Tensor:
        """The flow by frozen features as label of the pairs whose matches are mutual more often."""
        assert batch.teacher is not None
        size = len(batch.source)
        others = [row for row in range(size) if not batch.exact.start <= row < batch.exact.stop]
        best = batch.teacher.share.argsort(descending=True)[: max(1, round(_TAUGHT * len(others)))]
        rows = torch.tensor(others, device=best.device)[best]
        side = round(log_match.shape[1] ** 0.5)
        flow = batch.teacher.flow[best].unflatten(1, (side, side))
        return losses.correspondence_loss(log_match[rows], flow, resize(batch.reference_mask[rows], side))

    @torch.no_grad()
    def _keys(self, batch: FeatureBatch) -> tuple[Tensor, Tensor]:
        head = self.translator.dae.head
        return head(batch.source_components), head(batch.reference_components)

    # G

    def morph(self, batch: FeatureBatch) -> Morph:
        """Redraw all sources of a batch."""
        return self._morph(batch, self._keys(batch), slice(None))

    def _morph(self, batch: FeatureBatch, keys: tuple[Tensor, Tensor], wanted: slice) -> Morph:
        dae = self.translator.dae
        source_keys, reference_keys = keys[0][wanted], keys[1][wanted]
        with torch.no_grad():
            centres = dae.centres(source_keys)
            masks = dae.masks(dae.centres(reference_keys), reference_keys.shape[-1])
            scores = similarities(reference_keys, source_keys)
            weight = resize(batch.reference_mask[wanted], reference_keys.shape[-1]).flatten(1)
            flow = refine_flow(scores, weight)
            similarity = scores.amax(2)
        appearance = dae.read_appearance(
            batch.source[wanted], batch.spread[wanted], batch.source_mask[wanted], source_keys, centres
        )
        return self.translator.morpher(
            appearance,
            flow,
            similarity,
            batch.source_mask[wanted],
            reference_keys,
            batch.reference_mask[wanted],
            masks,
        )

    def _known_terms(self, batch: FeatureBatch, morph: Morph, result: Tensor) -> dict[str, Tensor]:
        """Terms of class and exact pairs, whose results are known."""
        exact, of_class, known = batch.exact, batch.of_class, batch.known
        truth, mask = batch.reference, batch.reference_mask
        terms: dict[str, Tensor] = {}
        if "sym" not in self.without:
            terms["symmetry"] = losses.symmetry_loss(truth[exact], morph.object[exact], mask[exact])
            if batch.class_count:
                small = [F.avg_pool2d(x[of_class], _CLASS_CELL) for x in (truth, morph.object, mask)]
                terms["symmetry"] = terms["symmetry"] + 0.5 * losses.symmetry_loss(small[0], small[1], small[2])
            terms["detail"] = losses.detail_loss(truth[known], result[known], mask[known])
        return terms

    def measure(
        self,
        images: Float[Tensor, "B 3 H W"],
        components: Float[Tensor, "B C g g"],
        object_: Float[Tensor, "B 1 H W"],
        centres: Float[Tensor, "B N 2"],
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B Y"]]:
        """Features and label logits of d, read in the attended regions."""
        dae = self.translator.dae
        side = components.shape[-1]
        attended = dae.masks(centres, side).amax(1, keepdim=True) * resize(object_, side)
        instances = components / dae.head.scale * attended
        return self.distance(instances, images * resize(attended, images.shape[-1]))

    def _label_term(self, batch: FeatureBatch) -> Tensor:
        _, scores = self._measure_sources(batch)
        return self.distance.label_loss(scores, batch.source_label)

    def _measure_sources(self, batch: FeatureBatch) -> tuple[Tensor, Tensor]:
        dae = self.translator.dae
        with torch.no_grad():
            centres = dae.centres(dae.head(batch.source_components))
        return self.measure(batch.source, batch.source_components, batch.source_mask, centres)

    def _translated_terms(
        self, batch: FeatureBatch, keys: tuple[Tensor, Tensor], translated: Tensor
    ) -> dict[str, Tensor]:
        """Terms for the source's identity and the reference's pose of s′, measured by frozen DAE and d."""
        dae, cross = self.translator.dae, batch.cross
        mask, reference_keys = batch.reference_mask[cross], keys[1][cross]
        terms: dict[str, Tensor] = {}
        with frozen(self.translator, self.distance):
            components, _ = dae.components(translated)
            again = dae.head(components)
            centres = dae.centres(again)
            features, scores = self.measure(translated, components, mask, centres)
            terms["identity"] = self.distance.label_loss(scores, batch.source_label[cross])
            if "cst" not in self.without:
                expected, _ = self._measure_sources(batch)
                terms["consistency"] = losses.consistency_loss(expected[cross].detach(), features)
                terms["pose"] = losses.pose_loss(
                    dae.centres(reference_keys).detach(), centres, reference_keys, again,
                    resize(mask, again.shape[-1]),
                )  # fmt: skip
        if "cst" not in self.without:
            terms["cycle"] = self._cycle_term(batch, keys, translated, again)
        return terms

    def _cycle_term(
        self, batch: FeatureBatch, keys: tuple[Tensor, Tensor], translated: Tensor, again: Tensor
    ) -> Tensor:
        """s′, redrawn in the pose of its source, must be the source."""
        dae, cross, side = self.translator.dae, batch.cross, again.shape[-1]
        mask, source_mask, source_keys = batch.reference_mask[cross], batch.source_mask[cross], keys[0][cross]
        with torch.no_grad():
            there = again.detach()
            centres = dae.centres(there)
            masks = dae.masks(dae.centres(source_keys), side)
            scores = similarities(source_keys, there)
            flow = refine_flow(scores, resize(source_mask, side).flatten(1))
            inside = (mask > 0.5).to(translated.dtype)
            painted = spread_objects(translated, mask)
        spread = translated * inside + painted * (1 - inside)  # gradients flow through the object
        appearance = dae.read_appearance(translated, spread, mask, there, centres)
        back = self.translator.morpher(appearance, flow, scores.amax(2), mask, source_keys, source_mask, masks)
        return losses.symmetry_loss(batch.source[cross], back.object, source_mask)
