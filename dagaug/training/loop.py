"""The optimisation loop of DA-GAN: phases, optimisers, weight averaging, rollback."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.accelerators import CPUAccelerator
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from dagaug.compute.devices import computes_in_bf16, pick_device
from dagaug.model import checkpoint
from dagaug.model.networks import Discriminator
from dagaug.model.presets import PRESETS
from dagaug.model.trained_model import Translator
from dagaug.model.warps import augment_for_discriminator
from dagaug.runtime.errors import UsageError
from dagaug.training import losses
from dagaug.training.modes import Snapshot, StepResult, Work
from dagaug.training.objectives import Fakes, Phase
from dagaug.training.options import TrainOptions
from dagaug.training.pairs import step_generator

__all__ = ["TrainingLoop", "best_precision", "make_fabric", "measured_steps"]

_PHASES = (0.3, 0.6)  # shares of the steps after which `pairs` and `full` begin


_DECAY_FROM = 0.55  # the learning rate falls linearly from here on


_RAMP = 0.15  # share of the steps over which adversarial and label weights grow to their full size


_AVERAGE = 0.995  # decay of the averaged weights


_CLIP = 5.0  # largest gradient norm


_RECALIBRATION = 30  # batches over which batch-norm statistics of the averaged weights are taken


# ---- the loop


class TrainingLoop:
    """Networks, optimisers and the step at which they stand."""

    def __init__(self, fabric: Fabric, work: Work, translator: Translator, options: TrainOptions) -> None:
        self.fabric, self.work, self.options = fabric, work, options
        preset = PRESETS[options.preset]
        self.rate = options.learning_rate or preset.learning_rate
        self.batch_size = options.batch_size or preset.batch_size
        self.weights = options.weight_of()
        self.averaged = copy.deepcopy(translator).requires_grad_(False).to(fabric.device)
        self.translator = translator
        generator_optimizer = torch.optim.Adam(work.objective.parameters(), self.rate, betas=preset.betas)
        self.objective = fabric.setup_module(work.objective)
        self.generator_optimizer = cast(torch.optim.Optimizer, fabric.setup_optimizers(generator_optimizer))
        judges = nn.ModuleDict({"d1": Discriminator(work.label_count)})
        if "d2" not in options.without:
            judges["d2"] = Discriminator(work.label_count)
        discriminator_optimizer = torch.optim.Adam(judges.parameters(), self.rate / 2, betas=preset.betas)
        self.judges_raw = judges
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator_optimizer": generator_optimizer,
            "discriminator_optimizer": discriminator_optimizer,
        }
        self.judges = {name: fabric.setup_module(judge) for name, judge in judges.items()}
        self.discriminator_optimizer = cast(torch.optim.Optimizer, fabric.setup_optimizers(discriminator_optimizer))
        work.to(fabric.device)
        self.done = 0
        self.bad_steps = 0

    def phase(self, step: int, total: int) -> Phase:
        """What the step of a training of ``total`` steps trains on."""
        if self.options.mode == "paper":
            return "full"
        share = step / total
        return "structure" if share < _PHASES[0] else "pairs" if share < _PHASES[1] else "full"

    def advance(self, total: int) -> dict[str, float]:
        """Do one step; returns its terms."""
        step, share = self.done, self.done / total
        phase = self.phase(step, total)
        rate = self.rate * min(1.0, max(0.02, (1 - share) / (1 - _DECAY_FROM)))
        for optimizer, factor in zip(self.optimizers.values(), (1.0, 0.5), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        result = self.work.step(self.objective, step, phase, self.batch_size)
        generator = step_generator(self.options.seed, step, 2)
        terms = dict(result.terms)
        judged = self._judged(result.fakes)
        if judged:
            scores = [
                losses.adversarial_loss(self.judges[name](augment_for_discriminator(fake, generator), label))
                for name, fake, label in judged
            ]
            terms["adversarial"] = torch.stack(scores).sum()
        weights = dict(self.weights)
        if self.options.mode == "reference" and phase == "full":
            ramp = min(1.0, (share - _PHASES[1]) / _RAMP)
            weights |= {name: ramp * weights[name] for name in ("adversarial", "identity")}
        loss = losses.full_objective(terms, weights)
        self.generator_optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.work.objective.parameters(), _CLIP)
        if bool(norm.isfinite()):
            self.generator_optimizer.step()
            self.bad_steps = 0
        else:
            self.bad_steps += 1
        if judged and (self.options.mode == "paper" or step % 2 == 0):
            terms["discriminators"] = self._train_judges(judged, result, generator)
        self._average()
        self.done += 1
        return {name: float(term.detach()) for name, term in terms.items()}

    def _judged(self, fakes: Fakes | None) -> list[tuple[str, Tensor, Tensor | None]]:
        if fakes is None:
            return []
        pairs = [("d1", fakes.translated, fakes.translated_label)]  # eq. 7
        if "d2" in self.judges:
            pairs.append(("d2", fakes.reconstructed, fakes.reconstructed_label))  # eq. 8
        return [pair for pair in pairs if len(pair[1])]

    def _train_judges(
        self, judged: list[tuple[str, Tensor, Tensor | None]], result: StepResult, generator: torch.Generator
    ) -> Tensor:
        total = torch.zeros((), device=self.fabric.device)
        for name, fake, label in judged:
            some = torch.randperm(len(result.real), generator=generator)[: len(fake)].to(result.real.device)
            real_label = None if result.real_label is None else result.real_label[some]
            total = total + losses.discriminator_loss(
                self.judges[name](augment_for_discriminator(result.real[some], generator), real_label),
                self.judges[name](augment_for_discriminator(fake.detach(), generator), label),
            )
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        if bool(total.detach().isfinite()):
            self.discriminator_optimizer.step()
        return total

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(_AVERAGE, (1 + self.done) / (10 + self.done))
        for mean, now in zip(self.averaged.state_dict().values(), self.translator.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    @torch.no_grad()
    def recalibrate(self) -> None:
        """Take the batch-norm statistics of the averaged weights anew, on images as users will give them."""
        norms = [module for module in self.averaged.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
        self.averaged.train()
        for batch in range(_RECALIBRATION):
            self.work.use(self.averaged, 2**31 + batch, self.batch_size)
        self.averaged.eval()

    @torch.no_grad()
    def snapshot(self) -> Snapshot:
        """Pictures made with the averaged weights."""
        return self.work.snapshot(self.averaged.eval())

    def save(self, path: Path, header: Mapping[str, Any]) -> None:
        """Write all that a resumed run needs."""
        parts = {
            "objective": self.work.objective.state_dict(),
            "averaged": self.averaged.state_dict(),
            "judges": self.judges_raw.state_dict(),
            **{name: checkpoint.optimizer_tensors(optimizer) for name, optimizer in self.optimizers.items()},
        }
        tensors = {key: value for name, part in parts.items() for key, value in checkpoint.add_prefix(name, part).items()}
        checkpoint.save(path, tensors, {**header, "kind": "state", "done": self.done})

    def restore(self, path: Path) -> dict[str, Any]:
        """Read what :meth:`save` wrote; returns the header."""
        tensors, header = checkpoint.load(path)
        for name, module in (
            ("objective", self.work.objective),
            ("averaged", self.averaged),
            ("judges", self.judges_raw),
        ):
            checkpoint.load_module(module, checkpoint.strip_prefix(name, tensors), path)
        for name, optimizer in self.optimizers.items():
            checkpoint.restore_optimizer(optimizer, checkpoint.strip_prefix(name, tensors))
        self.done = int(header["done"])
        return header


class _Autocast(MixedPrecision):
    """Mixed precision that leaves inputs alone: pixels and sampling grids need more than the 8 bits of bf16."""

    def convert_input(self, data: Any) -> Any:
        return data


class _AnyAccelerator(CPUAccelerator):
    """Lets Fabric use a torch device that it has no accelerator for; the device needs no setup."""

    def setup_device(self, device: torch.device) -> None:
        pass


def best_precision(device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """bf16 where the device computes in it, else float32."""
    return "bf16-mixed" if computes_in_bf16(device) else "32-true"


def make_fabric(device: str, precision: str) -> Fabric:
    """Fabric on one device.

    Args:
        device: a name for :func:`dagaug.compute.devices.pick_device`.
        precision: auto, 32-true, bf16-mixed or 16-mixed.

    Raises:
        UsageError: the precision is unknown, or this machine has no such device.
    """
    if precision not in ("auto", "32-true", "bf16-mixed", "16-mixed"):
        raise UsageError("choose auto, 32-true, bf16-mixed or 16-mixed", option="precision", value=precision)
    picked = pick_device(device)
    chosen = best_precision(picked) if precision == "auto" else precision
    plugins = None if chosen == "32-true" else [_Autocast(chosen, picked.type)]  # type: ignore[arg-type]
    try:
        if picked.type in ("cpu", "cuda", "mps"):
            devices = [picked.index or 0] if picked.type == "cuda" else 1
            return Fabric(accelerator=picked.type, devices=devices, plugins=plugins)
        return Fabric(accelerator=_AnyAccelerator(), strategy=SingleDeviceStrategy(picked), plugins=plugins)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"training cannot use it ({error})", option="device", value=device) from error


def measured_steps(loop: TrainingLoop, options: TrainOptions) -> int | None:
    """Steps that take about ``options.minutes``, from a few steps of each phase whose effect is undone."""
    if options.minutes is None:
        return None
    modules: list[nn.Module] = [loop.work.objective, loop.averaged, loop.judges_raw]
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    rate = loop.rate
    loop.rate = 0.0
    seconds: dict[str, float] = {}
    first, second = _PHASES
    shares = {"structure": first, "pairs": second - first, "full": 1 - second}
    for at in (0, 25, 80):
        phase = loop.phase(at, 100)
        for attempt in range(4):
            loop.done = at
            start = time.monotonic()
            loop.advance(100)
            if attempt:  # the first one allocates
                seconds[phase] = min(seconds.get(phase, np.inf), time.monotonic() - start)
    loop.done, loop.rate = 0, rate
    for module, tensors in zip(modules, before, strict=True):
        module.load_state_dict(tensors)
    for optimizer in loop.optimizers.values():
        optimizer.state.clear()
    each = sum(shares[phase] * taken for phase, taken in seconds.items()) / sum(shares[phase] for phase in seconds)
    return max(int(60 * options.minutes / each), 10)
