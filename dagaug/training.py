"""Training DA-GAN on Lightning Fabric (eqs. 9 and 10), in phases, resumable to the bit.

A run is a folder: ``options.json``, ``metrics.jsonl``, ``state.safetensors`` while it goes on and
``model.safetensors`` (averaged weights) when it is done. Everything random about a step comes from the seed and the
step's number, so the weights, the optimisers' moments and the number of steps done are all that a resumed run needs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dagaug import checkpoint, losses
from dagaug.datasets import Dataset, Domains
from dagaug.errors import OutputExistsError, TrainingError, UsageError
from dagaug.interrupts import Interrupted, stop_on_signals
from dagaug.models import (
    GENERAL,
    GENERAL_FILE,
    SCRATCH,
    ModelCard,
    Translator,
    build_translator,
    load_model,
    save_model,
    start_from,
)
from dagaug.networks import Discriminator
from dagaug.objectives import Fakes, Part, Phase
from dagaug.outputs import locked
from dagaug.patches import Framing
from dagaug.precision import computes_in_bf16
from dagaug.progress import SILENT, Progress
from dagaug.sampling import step_generator
from dagaug.tasks import PRESETS, Attention, Mode
from dagaug.translators import PaperTranslator, ReferenceTranslator
from dagaug.warps import augment_for_discriminator
from dagaug.workloads import PaperWork, ReferenceWork, Snapshot, StepResult, Work

__all__ = ["TrainOptions", "Trained", "best_precision", "default_steps", "identity_of", "run_folder", "train"]

_PHASES = (0.3, 0.6)  # shares of the steps after which `pairs` and `full` begin
_DECAY_FROM = 0.55  # the learning rate falls linearly from here on
_RAMP = 0.15  # share of the steps over which adversarial and label weights grow to their full size
_AVERAGE = 0.995  # decay of the averaged weights
_CLIP = 5.0  # largest gradient norm
_SAVE_SECONDS = 60.0
_LOG_EVERY = 10
_RECALIBRATION = 30  # batches over which batch-norm statistics of the averaged weights are taken
_MAX_BAD_STEPS = 20

# Weights of the terms that the paper does not have (README, "How it learns").
_EXACT_WEIGHTS = {
    "object": 1.0,
    "equivariance": 0.3,
    "separation": 0.5,
    "inside": 0.7,
    "flow": 2.0,
    "match": 0.3,
    "mask": 0.5,
    "label": 0.3,
    "cycle": 1.0,
    "silhouette": 0.25,
    "detail": 2.0,
}


class TrainOptions(BaseModel):
    """Everything that decides what a training gives, besides the data.

    ``None`` takes the preset's value; :meth:`resolved` fills all in.

    Attributes:
        preset: name of a task preset.
        framing: how images become patches.
        per_class: use only the first so many training images of each class.
        steps: optimiser steps in all.
        minutes: choose the steps so that training takes about so long on this machine; ``steps`` are the most then.
        start: weights to begin with: ``general`` (the networks that come with the package, ``pose`` only),
            ``scratch``, or a run or model file of the same networks.
        batch_size: images (pairs) a step.
        learning_rate: of Adam.
        seed: of everything random.
        without: parts that are switched off (Table 1a).
        regions, half_size, sharpness: the attended regions.
        distance: d of Table 4: ``resblock``, ``l2`` or ``timm:NAME``.
        weights: file of weights for the timm network of d.
        consistency, symmetry: α and β of eq. 9.
        adversarial, label: weights of the GAN losses and of d(Y, s′).
        own_pixels: least share of the source's own pixels in a morph (``pose`` only): where marks count for more than
            what a pose hides, as on aircraft, 0.9; G may draw all at 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = "pose"
    framing: Framing = Field(default_factory=Framing)
    per_class: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    start: str | None = None
    batch_size: int | None = Field(None, ge=4)
    learning_rate: float | None = Field(None, gt=0)
    seed: int = Field(0, ge=0)
    without: tuple[Part, ...] = ()
    regions: int | None = Field(None, ge=1, le=1024)
    half_size: float | None = Field(None, gt=0)
    sharpness: float | None = Field(None, gt=0)
    distance: str | None = None
    weights: Path | None = None
    consistency: float | None = Field(None, ge=0)
    symmetry: float | None = Field(None, ge=0)
    adversarial: float | None = Field(None, ge=0)
    label: float | None = Field(None, ge=0)
    own_pixels: float = Field(0.0, ge=0, le=1)

    @property
    def mode(self) -> Mode:
        """``reference`` or ``paper``, by the preset."""
        return PRESETS[self.preset].mode

    def resolved(self) -> TrainOptions:
        """The same options with the preset's values where none are given.

        Raises:
            UsageError: there is no such preset.
        """
        if self.preset not in PRESETS:
            raise UsageError(f"--preset {self.preset}: choose one of {', '.join(PRESETS)}")
        preset = PRESETS[self.preset]
        if preset.mode == "paper" and self.start == GENERAL:
            raise UsageError(f"--start {GENERAL}: holds networks of pose morphing; --preset {self.preset} has others")
        if preset.mode == "paper" and self.own_pixels:
            raise UsageError(f"--own-pixels {self.own_pixels}: is for pose morphing; --preset {self.preset} draws all")
        start = self.start or (GENERAL if preset.mode == "reference" else SCRATCH)
        known: dict[str, Any] = {
            "start": start,
            "batch_size": preset.batch_size,
            "learning_rate": preset.learning_rate,
            "regions": preset.attention.regions,
            "half_size": preset.attention.half_size,
            "sharpness": preset.attention.sharpness,
            "distance": preset.distance,
            "consistency": preset.consistency,
            "symmetry": preset.symmetry,
            "adversarial": preset.adversarial,
            "label": preset.label,
        }
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return TrainOptions.model_validate({**known, **given, "without": tuple(sorted(set(self.without)))})

    @property
    def attention(self) -> Attention:
        """The attended regions; one that covers the image without ``dae``."""
        if "dae" in self.without:
            return Attention(1, 4.0, 20.0)
        preset = PRESETS[self.preset].attention
        return Attention(
            self.regions or preset.regions,
            self.half_size or preset.half_size,
            self.sharpness or preset.sharpness,
        )

    def weight_of(self) -> dict[str, float]:
        """The weight of every term."""
        options = self.resolved()
        weights = dict(_EXACT_WEIGHTS)
        weights |= {
            "symmetry": options.symmetry or 0.0,
            "consistency": options.consistency or 0.0,
            "pose": options.consistency or 0.0,
            "identity": options.label or 0.0,
            "adversarial": options.adversarial or 0.0,
        }
        if options.mode == "paper":
            weights["label"] = 1.0
        return weights


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        run: its folder.
        steps: optimiser steps done in all.
        seconds: time taken by this call.
        resumed_at: step at which this call took over (0 for a new run).
        already: whether the run was finished before this call.
    """

    run: Path
    steps: int
    seconds: float
    resumed_at: int
    already: bool


# ---- where a run lies, and whether it is the same run


def default_steps(images: int, device: str) -> int:
    """Steps that suit a number of training images: four each, within what the device does in minutes (or hours)."""
    if device == "cpu":
        return int(np.clip(4 * images, 800, 2_000))
    return int(np.clip(12 * images, 4_000, 60_000))


def identity_of(options: TrainOptions, data: Dataset | Domains) -> dict[str, Any]:
    """What makes two runs the same run: options and the lists of the data."""
    if isinstance(data, Dataset):
        lists: Any = [[str(s.path), s.label, s.split] for s in data.samples] + [list(data.classes)]
    else:
        lists = [[str(path.name) for path in paths] for paths in (data.source, data.target)]
    digest = hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]
    known = options.resolved().model_dump(mode="json")
    if not options.own_pixels:  # runs that were begun before there was this option go on
        del known["own_pixels"]
    return {**known, "data": digest}


def run_folder(options: TrainOptions, data: Dataset | Domains, name: str, root: Path = Path("runs")) -> Path:
    """The folder of a run that is not given one: named after data, preset and everything that decides its result."""
    digest = hashlib.sha256(json.dumps(identity_of(options, data), sort_keys=True).encode()).hexdigest()[:6]
    return root / f"{name}-{options.preset}-{digest}"


def _claim(run: Path, identity: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Make the run's folder, or see that it belongs to the same run; returns what is known of it."""
    options = run / "options.json"
    if options.exists() and not overwrite:
        try:
            known = json.loads(options.read_text(encoding="utf-8"))
            before = dict(known["identity"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputExistsError(f"{options}: not a readable run; choose another --out, or --overwrite") from error
        for name in sorted(set(before) | set(identity)):
            if before.get(name) != identity.get(name):
                raise OutputExistsError(
                    f"{run}: holds a run with {name} {before.get(name)}, now it is {identity.get(name)}; "
                    "choose another --out, or --overwrite"
                )
        return known
    if (run / checkpoint.MODEL_FILE).exists() and not overwrite:
        raise OutputExistsError(f"{run}: holds a model that no training of dagaug left here; choose another --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputExistsError(f"{run}: cannot be written ({error.strerror}); choose another --out") from error
    return {"identity": identity}


# ---- the loop


class _Loop:
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
        tensors = {key: value for name, part in parts.items() for key, value in checkpoint.prefixed(name, part).items()}
        checkpoint.save(path, tensors, {**header, "kind": "state", "done": self.done})

    def restore(self, path: Path) -> dict[str, Any]:
        """Read what :meth:`save` wrote; returns the header."""
        tensors, header = checkpoint.load(path)
        for name, module in (
            ("objective", self.work.objective),
            ("averaged", self.averaged),
            ("judges", self.judges_raw),
        ):
            checkpoint.load_module(module, checkpoint.under(name, tensors), path)
        for name, optimizer in self.optimizers.items():
            checkpoint.restore_optimizer(optimizer, checkpoint.under(name, tensors))
        self.done = int(header["done"])
        return header


class _Autocast(MixedPrecision):
    """Mixed precision that leaves inputs alone: pixels and sampling grids need more than the 8 bits of bf16."""

    def convert_input(self, data: Any) -> Any:
        return data


def best_precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """bf16 where the processor computes in it, else 32 bits."""
    return "bf16-mixed" if computes_in_bf16(torch.device(accelerator)) else "32-true"


def train(
    options: TrainOptions,
    data: Dataset | Domains,
    *,
    name: str,
    out: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 2,
    overwrite: bool = False,
    strict: bool = False,
    watch: Callable[[Path, int, Snapshot], None] | None = None,
    sheets: int = 8,
    progress: Progress = SILENT,
) -> Trained:
    """Train DA-GAN, or go on with a training that was stopped.

    Args:
        options: what to train and how.
        data: a labelled data set for ``reference`` mode, two domains for ``paper`` mode.
        name: of the data, for the run's folder and card.
        out: the run's folder; ``runs/NAME-PRESET-HASH`` by default.
        device: a Fabric accelerator: auto, cpu, cuda (or gpu), mps.
        precision: a Fabric precision, or ``auto``.
        workers: threads that read images.
        overwrite: begin anew where another run lies.
        strict: an unreadable image is an error.
        watch: is given the run's folder, the step and pictures ``sheets`` times.
        sheets: how often.
        progress: is told of steps, rates and terms.

    Raises:
        UsageError: options do not fit each other or the data.
        DataError: there is nothing to train on.
        OutputExistsError: ``out`` holds another run.
        TrainingError: the losses stay not finite.
        Interrupted: stopped by a signal; the state is saved.
    """
    options = options.resolved()
    if (options.mode == "reference") != isinstance(data, Dataset):
        raise UsageError(
            f"--preset {options.preset}: needs "
            + ("a labelled data set" if options.mode == "reference" else "two folders, trainA and trainB")
        )
    if options.per_class is not None and not isinstance(data, Dataset):
        raise UsageError(f"--per-class {options.per_class}: two folders have no classes to count; leave it out")
    identity = identity_of(options, data)
    run = out or run_folder(options, data, name)
    with _held(run):
        known = _claim(run, identity, overwrite)
        watched = None if watch is None else partial(watch, run)
        return _train(options, data, name, run, known, device, precision, workers, strict, watched, sheets, progress)


@contextmanager
def _held(run: Path) -> Iterator[None]:
    """Keep other trainings away from a run's folder."""
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        with locked(run.with_name(f".{run.name}.lock"), run):
            yield
    except OSError as error:
        raise OutputExistsError(f"{run}: cannot be written ({error.strerror}); choose another --out") from error


def _train(
    options: TrainOptions,
    data: Dataset | Domains,
    name: str,
    run: Path,
    known: Mapping[str, Any],
    device: str,
    precision: str,
    workers: int,
    strict: bool,
    watch: Callable[[int, Snapshot], None] | None,
    sheets: int,
    progress: Progress,
) -> Trained:
    """The training itself, in a folder that is its own."""
    begins = "steps" not in known
    if not begins and (run / checkpoint.MODEL_FILE).exists():
        return Trained(run, int(known.get("steps", 0)), 0.0, 0, already=True)
    started = time.monotonic()
    with _removed_if_empty(run):
        fabric = _fabric(device, precision)
        torch.manual_seed(options.seed)
        translator = build_translator(options.mode, options.attention, options.own_pixels)
        if not (run / checkpoint.STATE_FILE).exists():  # a resumed run has its own weights
            _start(translator, options, progress)
        work = _work(data, options, translator, workers, strict, progress)
        loop = _Loop(fabric, work, translator, options)
    state = run / checkpoint.STATE_FILE
    if begins:  # only now, when nothing is wrong with the options, does what --overwrite replaces go
        for stale in (checkpoint.MODEL_FILE, checkpoint.STATE_FILE, "metrics.jsonl", "split.csv"):
            (run / stale).unlink(missing_ok=True)
    if state.exists():
        loop.restore(state)
        total = int(known["steps"])
        progress.say(f"{run}: going on at step {loop.done} of {total}")
    else:
        bounds = [steps for steps in (options.steps, _measured_steps(loop, options)) if steps is not None]
        total = min(bounds, default=default_steps(work.images, fabric.device.type))
        _write_options(run, {"identity": known["identity"], "steps": total, "classes": work.classes, "name": name})
        if isinstance(data, Dataset) and data.split_origin == "drawn":
            data.write_split(run / "split.csv")
    _cut_metrics(run / "metrics.jsonl", loop.done)
    resumed_at = loop.done
    _run(loop, run, total, watch, sheets, progress)
    card = ModelCard(
        mode=options.mode,
        classes=work.classes,
        framing=options.framing,
        regions=options.attention.regions,
        half_size=options.attention.half_size,
        sharpness=options.attention.sharpness,
        steps=total,
        seed=options.seed,
        data=name,
        per_class=options.per_class,
        split_seed=data.split_seed if isinstance(data, Dataset) else None,
        own_pixels=options.own_pixels,
    )
    loop.recalibrate()
    if watch is not None:
        watch(total, loop.snapshot())
    save_model(run / checkpoint.MODEL_FILE, card, loop.averaged.state_dict())
    state.unlink(missing_ok=True)
    return Trained(run, total, time.monotonic() - started, resumed_at, already=False)


def _start(translator: Translator, options: TrainOptions, progress: Progress) -> None:
    """Give new networks the weights that the training begins with."""
    if options.start in (None, SCRATCH):
        return
    model = load_model(GENERAL_FILE if options.start == GENERAL else Path(str(options.start)))
    if model.card.mode != options.mode:
        raise UsageError(f"--start {options.start}: holds networks of {model.card.mode} mode, not {options.mode}")
    left = start_from(translator, model.translator.state_dict())
    if left:
        progress.say(f"Starting from {options.start}, but for {', '.join(left)}, whose shape is another here")


@contextmanager
def _removed_if_empty(run: Path) -> Iterator[None]:
    """Leave no empty folder behind where a training cannot begin."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # there is something in it
            run.rmdir()
        raise


def _fabric(device: str, precision: str) -> Fabric:
    accelerator = "gpu" if device == "cuda" else device
    if accelerator not in ("auto", "cpu", "gpu", "mps"):
        raise UsageError(f"--device {device}: choose auto, cpu, cuda or mps")
    if precision not in ("auto", "32-true", "bf16-mixed", "16-mixed"):
        raise UsageError(f"--precision {precision}: choose auto, 32-true, bf16-mixed or 16-mixed")
    try:
        fabric = Fabric(accelerator=accelerator, devices=1)
        kind = fabric.device.type
        chosen = best_precision(kind) if precision == "auto" else precision
        if chosen == "32-true":
            return fabric
        return Fabric(accelerator=accelerator, devices=1, plugins=[_Autocast(chosen, kind)])  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--device {device}: not on this machine ({error})") from error


def _work(
    data: Dataset | Domains,
    options: TrainOptions,
    translator: Translator,
    workers: int,
    strict: bool,
    progress: Progress,
) -> Work:
    common: dict[str, Any] = {
        "distance": options.distance or PRESETS[options.preset].distance,
        "weights": options.weights,
        "without": frozenset(options.without),
        "seed": options.seed,
        "workers": workers,
        "strict": strict,
        "progress": progress,
    }
    if isinstance(data, Dataset):
        assert isinstance(translator, ReferenceTranslator)
        return ReferenceWork(data.subset(options.per_class), options.framing, translator, **common)
    assert isinstance(translator, PaperTranslator)
    return PaperWork(data, options.framing, translator, **common)


def _measured_steps(loop: _Loop, options: TrainOptions) -> int | None:
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


def _run(
    loop: _Loop,
    run: Path,
    total: int,
    watch: Callable[[int, Snapshot], None] | None,
    sheets: int,
    progress: Progress,
) -> None:
    state, saved = run / checkpoint.STATE_FILE, time.monotonic()
    sums: dict[str, list[float]] = {}
    show_at = {round(total * k / sheets) for k in range(1, sheets)} if sheets else set()
    name, pairs = f"Training, {total} steps", loop.batch_size
    with stop_on_signals() as stop, progress.task(name, total * pairs, "pairs") as task:
        task.advance(loop.done * pairs)
        while loop.done < total:
            terms = loop.advance(total)
            if loop.bad_steps >= _MAX_BAD_STEPS:
                raise TrainingError(
                    f"{run}: the losses are not finite since step {loop.done - loop.bad_steps}; the last good state is "
                    "kept; try a smaller --learning-rate or --precision 32-true with another --out"
                )
            for key, value in terms.items():
                sums.setdefault(key, []).append(value)
            if loop.done % _LOG_EVERY == 0 or loop.done == total:
                means = {key: float(np.mean(values)) for key, values in sums.items()}
                _append_metrics(
                    run / "metrics.jsonl", {"step": loop.done, "phase": loop.phase(loop.done - 1, total), **means}
                )
                note = "  ".join(f"{key} {value:.3g}" for key, value in means.items())
                sums = {}
            else:
                note = ""
            task.advance(pairs, note)
            if watch is not None and loop.done in show_at:
                watch(loop.done, loop.snapshot())
            if not loop.bad_steps and (stop.requested or time.monotonic() - saved > _SAVE_SECONDS):
                loop.save(state, {})
                saved = time.monotonic()
            if stop.requested:
                raise Interrupted(f"stopped at step {loop.done} of {total}; {run} keeps it; the same command goes on")


def _append_metrics(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _cut_metrics(path: Path, done: int) -> None:
    """Drop what a killed run logged after its last saved step."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    path.write_text("".join(kept), encoding="utf-8")


def _write_options(run: Path, known: Mapping[str, Any]) -> None:
    temporary = run / "options.json.tmp"
    temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    temporary.replace(run / "options.json")
