"""The trainer: optimisation steps of DA-GAN, with phases, optimisers, discriminators and weight averaging."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dagaug.model import checkpoint
from dagaug.model.known_warps import augment_for_discriminator
from dagaug.model.networks import Discriminator
from dagaug.model.task_presets import PRESETS
from dagaug.model.trained_model import Translator
from dagaug.training import losses
from dagaug.training.mode_objectives import Fakes, Phase
from dagaug.training.modes import Snapshot, StepResult, TrainingMode
from dagaug.training.options import TrainOptions
from dagaug.training.pairs import step_generator

__all__ = ["PHASES", "Trainer"]

PHASES = (0.3, 0.6)
"""Shares of the steps after which the phases ``pairs`` and ``full`` begin."""

_DECAY_FROM = 0.55  # share of the steps after which the learning rate falls linearly
_RAMP = 0.15  # share of the steps over which adversarial and label weights grow to their full size
_AVERAGE_DECAY = 0.995  # of the averaged weights
_MAX_GRADIENT_NORM = 5.0


class Trainer:
    """Networks and optimisers of a training, and the number of steps done.

    Args:
        fabric: device and precision.
        mode: data and objective.
        translator: F, the network of ``mode.objective`` that is kept.
        options: options of the training.

    Attributes:
        averaged: F with averaged weights, the result of the training.
        optimizers: of the objective and of the discriminators.
        rate: peak learning rate.
        done: steps done.
        bad_steps: latest steps in a row whose gradient was not finite and that changed no weights.
    """

    def __init__(self, fabric: Fabric, mode: TrainingMode, translator: Translator, options: TrainOptions) -> None:
        self.fabric, self.mode, self.options = fabric, mode, options
        preset = PRESETS[options.preset]
        self.rate = options.learning_rate or preset.learning_rate
        self.batch_size = options.batch_size or preset.batch_size
        self.weights = options.term_weights()
        self.averaged = copy.deepcopy(translator).requires_grad_(False).to(fabric.device)
        self.translator = translator
        generator_optimizer = torch.optim.Adam(mode.objective.parameters(), self.rate, betas=preset.betas)
        self.objective = fabric.setup_module(mode.objective)
        self.generator_optimizer = cast(torch.optim.Optimizer, fabric.setup_optimizers(generator_optimizer))
        discriminators = nn.ModuleDict({"d1": Discriminator(mode.label_count)})
        if "d2" not in options.without:
            discriminators["d2"] = Discriminator(mode.label_count)
        discriminator_optimizer = torch.optim.Adam(discriminators.parameters(), self.rate / 2, betas=preset.betas)
        self.discriminators = discriminators
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator_optimizer": generator_optimizer,
            "discriminator_optimizer": discriminator_optimizer,
        }
        # Fabric's wrappers compute in mixed precision; the parameters are shared.
        self._wrapped = {name: fabric.setup_module(one) for name, one in discriminators.items()}
        self.discriminator_optimizer = cast(torch.optim.Optimizer, fabric.setup_optimizers(discriminator_optimizer))
        mode.to(fabric.device)
        self.done = 0
        self.bad_steps = 0

    def phase(self, step: int, total: int) -> Phase:
        """Phase of a step in a training of ``total`` steps."""
        if self.options.mode == "paper":
            return "full"
        share = step / total
        return "structure" if share < PHASES[0] else "pairs" if share < PHASES[1] else "full"

    def step(self, total: int) -> dict[str, float]:
        """Do the next step of ``total`` (eqs. 9 and 10); returns its unweighted loss terms by name."""
        step, share = self.done, self.done / total
        phase = self.phase(step, total)
        rate = self.rate * min(1.0, max(0.02, (1 - share) / (1 - _DECAY_FROM)))
        for optimizer, factor in zip(self.optimizers.values(), (1.0, 0.5), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        result = self.mode.forward(self.objective, step, phase, self.batch_size)
        generator = step_generator(self.options.seed, step, 2)
        terms = dict(result.terms)
        fakes = self._discriminator_inputs(result.fakes)
        if fakes:
            scores = [
                losses.adversarial_loss(self._wrapped[name](augment_for_discriminator(fake, generator), label))
                for name, fake, label in fakes
            ]
            terms["adversarial"] = torch.stack(scores).sum()
        weights = dict(self.weights)
        if self.options.mode == "reference" and phase == "full":
            ramp = min(1.0, (share - PHASES[1]) / _RAMP)
            weights |= {name: ramp * weights[name] for name in ("adversarial", "identity")}
        loss = losses.full_objective(terms, weights)
        self.generator_optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.mode.objective.parameters(), _MAX_GRADIENT_NORM)
        if bool(norm.isfinite()):
            self.generator_optimizer.step()
            self.bad_steps = 0
        else:
            self.bad_steps += 1
        if fakes and (self.options.mode == "paper" or step % 2 == 0):
            terms["discriminators"] = self._train_discriminators(fakes, result, generator)
        self._average()
        self.done += 1
        return {name: float(term.detach()) for name, term in terms.items()}

    def _discriminator_inputs(self, fakes: Fakes | None) -> list[tuple[str, Tensor, Tensor | None]]:
        """For each discriminator its name, the fakes that it judges and their labels, if there are any fakes."""
        if fakes is None:
            return []
        pairs = [("d1", fakes.translated, fakes.translated_label)]  # eq. 7
        if "d2" in self.discriminators:
            pairs.append(("d2", fakes.reconstructed, fakes.reconstructed_label))  # eq. 8
        return [pair for pair in pairs if len(pair[1])]

    def _train_discriminators(
        self, fakes: list[tuple[str, Tensor, Tensor | None]], result: StepResult, generator: torch.Generator
    ) -> Tensor:
        """One step of the discriminators, if their loss is finite; returns it."""
        total = torch.zeros((), device=self.fabric.device)
        for name, fake, label in fakes:
            some = torch.randperm(len(result.real), generator=generator)[: len(fake)].to(result.real.device)
            real_label = None if result.real_label is None else result.real_label[some]
            total = total + losses.discriminator_loss(
                self._wrapped[name](augment_for_discriminator(result.real[some], generator), real_label),
                self._wrapped[name](augment_for_discriminator(fake.detach(), generator), label),
            )
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        if bool(total.detach().isfinite()):
            self.discriminator_optimizer.step()
        return total

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(_AVERAGE_DECAY, (1 + self.done) / (10 + self.done))
        for mean, now in zip(self.averaged.state_dict().values(), self.translator.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    @torch.no_grad()
    def recalibrate(self, batches: int = 30) -> None:
        """Compute new batch-norm statistics for the averaged weights, on images without colour jitter."""
        self.averaged.train()
        for norm in self.averaged.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.training:  # a frozen network stays in evaluation mode
                norm.reset_running_stats()
                norm.momentum = None  # None: a plain mean over the batches
        for batch in range(batches):
            self.mode.run_translator(self.averaged, 2**31 + batch, self.batch_size)
        self.averaged.eval()

    @torch.no_grad()
    def snapshot(self) -> Snapshot:
        """Sample images made with the averaged weights."""
        return self.mode.snapshot(self.averaged.eval())

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs.

        Raises:
            CheckpointError: the file cannot be written.
        """
        parts = {
            "objective": self.mode.objective.state_dict(),
            "averaged": self.averaged.state_dict(),
            "judges": self.discriminators.state_dict(),  # the name in files of this format
            **{name: checkpoint.optimizer_tensors(optimizer) for name, optimizer in self.optimizers.items()},
        }
        tensors: dict[str, Tensor] = {}
        for name, part in parts.items():
            tensors |= checkpoint.add_prefix(name, part)
        checkpoint.save(path, tensors, {"kind": "state", "done": self.done})

    def restore(self, path: Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is corrupt, or holds other networks.
        """
        tensors, header = checkpoint.load(path)
        for name, module in (
            ("objective", self.mode.objective),
            ("averaged", self.averaged),
            ("judges", self.discriminators),
        ):
            checkpoint.load_module(module, checkpoint.strip_prefix(name, tensors), path)
        for name, optimizer in self.optimizers.items():
            checkpoint.restore_optimizer(optimizer, checkpoint.strip_prefix(name, tensors))
        self.done = int(header["done"])
