"""The command line: parse, call one function, print. Heavy modules are imported when a command runs, not before."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dagaug.console import Terminal
from dagaug.errors import DataError, UsageError
from dagaug.options import (
    Background,
    Band,
    Checkpoint,
    Classifier,
    Crop,
    Data,
    Device,
    Encoding,
    ExportForm,
    Fit,
    Frame,
    Json,
    Keep,
    Layout,
    LayoutOption,
    Merge,
    OptionalData,
    Overwrite,
    PerClass,
    Quiet,
    Seed,
    ShowForm,
    Strict,
    Weights,
    Where,
    Workers,
)
from dagaug.tables import metrics_lines, metrics_table, pairs_lines, pairs_table, score_lines, score_table

if TYPE_CHECKING:
    from dagaug.store import Header
    from dagaug.workloads import Snapshot

__all__ = ["app"]

app = typer.Typer(
    name="dagaug",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Redraw each image of a fine-grained data set in the pose of another (DA-GAN), keep what a classifier still "
    "recognises, and train better classifiers on the result.",
    epilog="Start with [bold]dagaug demo[/bold], or: dagaug sample-data ./cub; dagaug train ./cub; "
    "dagaug augment ./cub --refs 10; dagaug score",
)


_QUICK_STEPS = 400  # of a training with --quick
_NO_HELP = 3  # exit code of score --fail-unless-helps


def _version(wanted: bool | None) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dagaug {version('dagaug')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    del version


def _checked(build: Any, **values: Any) -> Any:
    """Make an options record; what pydantic finds wrong becomes one line."""
    from pydantic import ValidationError

    try:
        return build(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{name} {first.get('input')}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def _newest_store() -> Path:
    files = sorted([*Path("runs").glob("*/*.h5"), *Path().glob("*.h5")], key=lambda path: path.stat().st_mtime)
    if not files:
        raise DataError("no augmented .h5 file found here or under runs/; make one first: dagaug augment DATA")
    return files[-1]


def _split_seed(header: Header) -> int:
    """The seed that draws the same split again."""
    drawn = header.options.get("split_seed")
    return drawn if isinstance(drawn, int) else header.seed


def _watch(run: Path, step: int, snapshot: Snapshot) -> None:
    """Write a training's pictures beside it."""
    import cv2

    from dagaug.sheets import attention_overlay, contact_sheet

    (run / "sheets").mkdir(exist_ok=True)
    sheet = contact_sheet(snapshot.sources, snapshot.references, snapshot.morphs)
    cv2.imwrite(str(run / "sheets" / f"step-{step:06d}.png"), sheet[..., ::-1])
    cv2.imwrite(
        str(run / "attention.png"),
        attention_overlay(snapshot.attended, snapshot.centres, snapshot.half_size)[..., ::-1],
    )


# ---- commands


@app.command("sample-data")
def sample_data(
    directory: Annotated[Path, typer.Argument(help="Where to write; a new or empty folder.")],
    species: Annotated[int, typer.Option(min=2, max=200, help="Number of species.")] = 20,
    per_class: Annotated[int, typer.Option(min=1, help="Training images of each species.")] = 12,
    test_per_class: Annotated[int, typer.Option(min=1, help="Test images of each species.")] = 50,
    size: Annotated[int, typer.Option(min=32, max=512, help="Side of the images in pixels.")] = 64,
    pose_band: Annotated[
        Band, typer.Option(help="Training poses: one narrow band for each species, 70% in it, or all. Tests show all.")
    ] = Band.narrow,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the built-in birds: procedural species in known poses, in the CUB-200-2011 layout."""
    from dagaug.flock import write_flock

    terminal = Terminal(as_json=as_json, quiet=quiet)
    write_flock(
        directory,
        species=species,
        per_class=per_class,
        test_per_class=test_per_class,
        size=size,
        pose_band=pose_band.value,
        seed=seed,
        progress=terminal,
    )
    terminal.result(
        {"data": directory, "species": species, "train": species * per_class, "test": species * test_per_class},
        [f"{species} species: {species * per_class} training, {species * test_per_class} test images in {directory}"],
        next_step=f"dagaug train {directory}",
    )


@app.command()
def train(
    data: Annotated[
        Path | None,
        typer.Argument(help="Data folder, or two folders trainA and trainB; the built-in birds by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME by default.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="pose, or a task of the paper's Table 4: digits, birds, faces, skeletons, facades, colorization."
        ),
    ] = "pose",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; what suits data and device by default.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Choose the steps so that training takes about so long.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Weights to begin with: general (comes with dagaug, default for pose), scratch, or a run."),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the patches that networks see, a multiple of 16.")] = 64,
    batch_size: Annotated[int | None, typer.Option(min=4, help="Pairs a step; the preset's by default.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam; the preset's by default.")] = None,
    per_class: PerClass = None,
    crop: Annotated[Crop, typer.Option(help="Cut images to their bounding boxes, where they have such.")] = Crop.box,
    margin: Annotated[float, typer.Option(help="Free space around a box, in parts of its larger side.")] = 0.15,
    fit: Annotated[Fit, typer.Option(help="How whole images become square.")] = Fit.letterbox,
    without: Annotated[
        list[str] | None, typer.Option(help="Switch a part off (Table 1a): dae, cst, sym or d2; may be repeated.")
    ] = None,
    regions: Annotated[int | None, typer.Option(min=1, help="N, the number of attended regions (eq. 1).")] = None,
    half_size: Annotated[
        float | None, typer.Option(help="Half of a region's side (eq. 2); the image is 2 wide.")
    ] = None,
    sharpness: Annotated[float | None, typer.Option(help="k of the regions' masks (eq. 4).")] = None,
    distance: Annotated[str | None, typer.Option(help="d of Table 4: resblock, l2 or timm:NAME.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights that the timm network of --distance starts from.")
    ] = None,
    consistency: Annotated[float | None, typer.Option(help="α, weight of L_cst (eq. 9).")] = None,
    symmetry: Annotated[float | None, typer.Option(help="β, weight of L_sym (eq. 9).")] = None,
    adversarial: Annotated[float | None, typer.Option(help="Weight of the GAN losses (eqs. 7 and 8).")] = None,
    own_pixels: Annotated[
        float,
        typer.Option(min=0, max=1, help="Least share of the source's own pixels in a morph; 0.9 keeps liveries crisp."),
    ] = 0.0,
    layout: LayoutOption = Layout.auto,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.")] = "auto",
    workers: Workers = 2,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train DA-GAN on a folder of labelled images. The same command again goes on where it stopped."""
    from dagaug.datasets import read_dataset, read_domains
    from dagaug.patches import Framing
    from dagaug.training import TrainOptions, train

    terminal = Terminal(as_json=as_json, quiet=quiet)
    framing = _checked(Framing, size=size, crop=crop.value, margin=margin, fit=fit.value)
    options: TrainOptions = _checked(
        TrainOptions,
        preset=preset,
        framing=framing,
        per_class=per_class,
        steps=steps,
        minutes=minutes,
        start=start,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        without=tuple(without or ()),
        regions=regions,
        half_size=half_size,
        sharpness=sharpness,
        distance=distance,
        weights=weights,
        consistency=consistency,
        symmetry=symmetry,
        adversarial=adversarial,
        own_pixels=own_pixels,
    ).resolved()
    if data is None:
        from dagaug.flock import write_flock

        data = Path("runs") / "built-in-birds"
        terminal.say(f"No data folder given: training on the built-in birds, written to {data}")
        write_flock(data, progress=terminal)
    source = read_dataset(data, layout=layout.value, seed=seed) if options.mode == "reference" else read_domains(data)
    name = data.resolve().name if data.is_dir() else data.stem
    done = train(
        options,
        source,
        name=name,
        out=out,
        device=device,
        precision=precision,
        workers=workers,
        overwrite=overwrite,
        strict=strict,
        watch=_watch,
        progress=terminal,
    )
    if done.already:
        lines = [f"{done.run} is trained already ({done.steps} steps); --overwrite trains it anew"]
    else:
        new = done.steps - done.resumed_at
        lines = [
            f"Trained {new} steps in {done.seconds / 60:.1f} minutes. The run is {done.run}",
            f"Sample sheets: {done.run / 'sheets'}; attended regions: {done.run / 'attention.png'}",
        ]
    following = f"dagaug augment {data} --refs 10" if options.mode == "reference" else "dagaug translate FOLDER"
    terminal.result(asdict(done), lines, next_step=following)


@app.command()
def augment(
    data: Data,
    refs: Annotated[int, typer.Option(min=1, help="Random references for each source.")] = 10,
    out: Annotated[Path | None, typer.Option(help="HDF5 file to write; beside the run by default.")] = None,
    checkpoint: Checkpoint = None,
    variants: Annotated[
        str,
        typer.Option(
            help="Candidates for each reference: morph (in its pose), mirror (in its mirror image's), cutout (the "
            "source as it is, on the background alone)."
        ),
    ] = "morph,mirror",
    background: Annotated[
        Background,
        typer.Option(help="What stands behind: the reference's background, the source's, or another training image's."),
    ] = Background.reference,
    keep: Annotated[
        Keep, typer.Option(help="Top-1 of each reference, of each image (the paper's rule), or all that pass.")
    ] = Keep.per_reference,
    allow_mislabelled: Annotated[
        bool,
        typer.Option(
            "--allow-mislabelled/--reject-mislabelled",
            help="Keep or reject what the classifier takes for another class.",
        ),
    ] = True,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Least p(source's label) that is kept. By default chance, one in the number of classes, or 0 where "
            "the classifier is right on fewer than half of the images it did not see.",
        ),
    ] = None,
    max_confidence: Annotated[float, typer.Option(min=0, max=1, help="Drop what is easier than this.")] = 1.0,
    classifier: Classifier = "auto",
    weights: Weights = None,
    folds: Annotated[
        int,
        typer.Option(
            min=1, help="Classifiers, none of which judges morphs of images it learned from; 1: no such care."
        ),
    ] = 3,
    frame: Annotated[
        Frame, typer.Option(help="Store morphs in the whole images that give their backgrounds, or the patch.")
    ] = Frame.whole,
    encoding: Annotated[Encoding, typer.Option(help="How images are stored.")] = Encoding.jpeg,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG.")] = 95,
    real: Annotated[bool, typer.Option("--real/--no-real", help="Store the real images too.")] = True,
    per_class: PerClass = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many sources.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="CSV with the columns source,reference: exactly these morphs, all kept.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell counts, time and size.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Of a finished file, make what lacks files that can be read now.")
    ] = False,
    engine: Annotated[Where, typer.Option(help="This machine, or the workers of a Ray cluster.")] = Where.local,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster; one is started on this machine by default.")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Ray's processes; one for each GPU, or each CPU, by default.")
    ] = None,
    merge: Annotated[
        Merge, typer.Option(help="One file, or one that reads the images from the shards in a folder beside it.")
    ] = Merge.copy,
    layout: LayoutOption = Layout.auto,
    seed: Seed = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Candidates computed at a time; what suits the device by default.")
    ] = None,
    device: Device = "auto",
    workers: Workers = 2,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Morph every image into the poses of random references, keep what a classifier recognises, write HDF5."""
    from dagaug import augment as augmenting
    from dagaug.checkpoint import newest_run
    from dagaug.datasets import read_dataset
    from dagaug.models import JUDGES_FILE, load_model

    terminal = Terminal(as_json=as_json, quiet=quiet)
    dataset = read_dataset(data, layout=layout.value, seed=seed)
    model = load_model(checkpoint or newest_run())
    drawn = model.card.split_seed
    if drawn is not None and dataset.split_seed not in (None, drawn):
        dataset = read_dataset(data, layout=layout.value, seed=drawn)  # what the training left unseen is tested
    if per_class is None and model.card.per_class is not None:
        per_class = model.card.per_class
        terminal.say(f"Using the first {per_class} training images of each class, as the training did (--per-class)")
    options = _checked(
        augmenting.AugmentOptions,
        refs=refs,
        variants=tuple(name.strip() for name in variants.split(",")),
        background=background.value,
        keep=keep.value,
        allow_mislabelled=allow_mislabelled,
        min_confidence=min_confidence,
        max_confidence=max_confidence,
        classifier=classifier,
        weights=weights,
        folds=folds,
        frame=frame.value,
        encoding=encoding.value,
        quality=quality,
        real=real,
        per_class=per_class,
        limit=limit,
        pairs=pairs,
        seed=seed,
        batch_size=batch_size,
    )
    run = model.path.parent
    what = f"pairs-{pairs.stem}" if pairs else f"refs{refs}"
    out = out or run / f"{data.resolve().name or 'data'}-{what}.h5"
    if dry_run:
        guess = augmenting.estimate(model, dataset, options, out, device=device, workers=workers, merge=merge.value)
        lines = [
            f"{guess.sources} sources, {guess.candidates} candidates, would be written to {out}",
            f"About {guess.seconds / 60:.1f} minutes and the training of the classifiers",
            f"At most {guess.size / 1e6:.1f} MB, and {guess.needed / 1e6:.1f} MB while it is made; "
            f"{guess.free / 1e9:.1f} GB are free",
        ]
        if guess.free < guess.needed:
            lines.append("Warning: that would fill the disk; choose another --out, fewer --refs or --merge virtual")
        terminal.result({**asdict(guess), "out": out}, lines)
        return
    executor = None
    if engine is Where.ray:
        from dagaug.distributed import RayExecutor

        executor = RayExecutor(ray_address, ray_workers, device=device)
    elif ray_address is not None or ray_workers is not None:
        raise UsageError("--ray-address and --ray-workers: only with --engine ray")
    done = augmenting.augment(
        model,
        dataset,
        options,
        out,
        device=device,
        workers=workers,
        overwrite=overwrite,
        strict=strict,
        cache=run / JUDGES_FILE,
        retry_failed=retry_failed,
        executor=executor,
        merge=merge.value,
        progress=terminal,
    )
    rejected = "; ".join(f"{count} {name}" for name, count in done.verdicts.items() if count and name != "kept")
    lines = [
        f"{done.sources} sources, {done.candidates} candidates, {done.kept} kept"
        + (f" ({rejected})" if rejected else ""),
        f"{done.out}: {done.kept} synthetic and {done.real} real images, in {done.seconds / 60:.1f} minutes",
    ]
    if done.skipped:
        first = done.skipped[0]
        log = augmenting.skipped_log(done.out)
        lines.append(f"{len(done.skipped)} files skipped, listed in the file and in {log.name}; the first:")
        lines.append(f"{first.path}: {first.reason}; when they can be read: the same command with --retry-failed")
    terminal.result(asdict(done), lines, next_step="dagaug score    (pictures: dagaug show)")


@app.command()
def score(
    data: OptionalData = None,
    file: Annotated[Path | None, typer.Argument(help="HDF5 file of dagaug augment; the newest by default.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="Trainings of each arm, paired by seed; 5, or 3 with --quick.")
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="real, strong, real+dagaug, strong+dagaug, cutout, cutwarp, random, cutout+dagaug; all by default."
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: an arm with another HDF5 file's or image folder's images; may be repeated."),
    ] = None,
    controls: Annotated[
        bool,
        typer.Option("--controls/--no-controls", help="The controls, and the arm cutout+dagaug, need the checkpoint."),
    ] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The generator's, for the controls; the one that the file names by default.")
    ] = None,
    fractions: Annotated[
        str | None, typer.Option(help="Such as 0.25,0.5,1: accuracy against the number of real images.")
    ] = None,
    ratio: Annotated[
        str | None, typer.Option(help="Such as 0.1,0.5: further synthetic shares of a batch to try.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A first look in some five minutes: 3 seeds of real, real+dagaug and cutout."),
    ] = False,
    validation: Annotated[
        float | None,
        typer.Option(help="Choose each arm's steps by held-out training images: the share of a fold, such as 0.25."),
    ] = None,
    finetune: Annotated[bool, typer.Option("--finetune", help="Start from pretrained weights (lite0).")] = False,
    linear_probe: Annotated[
        bool, typer.Option("--linear-probe", help="Train a linear classifier on frozen pretrained features (lite0).")
    ] = False,
    classifier: Classifier = "auto",
    weights: Weights = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side of the images; the training's patch size by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of every training.")] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step.")] = 32,
    synthetic_share: Annotated[float, typer.Option(help="Share of each batch that is synthetic.")] = 0.5,
    per_class: PerClass = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write; beside the HDF5 file by default.")] = None,
    fail_unless_helps: Annotated[
        bool, typer.Option("--fail-unless-helps", help="Exit with 3 unless the verdict is that the images help.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Annotated[
        str | None,
        typer.Option(help="Trainings at once, one on each: cuda:0,cuda:1 or cpu,cpu; all visible GPUs by default."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the same classifier on real and on real + augmented images, with controls, and test all on unseen ones."""
    import json

    from dagaug.arms import QUICK, QUICK_SEEDS, ScoreOptions, arm_names
    from dagaug.backbones import LITE0, network_for
    from dagaug.classifier import FitOptions
    from dagaug.crew import pick_devices
    from dagaug.datasets import read_dataset
    from dagaug.engine import pick_device
    from dagaug.outputs import write_whole
    from dagaug.score import score
    from dagaug.store import Store

    terminal = Terminal(as_json=as_json, quiet=quiet)
    if finetune and linear_probe:
        raise UsageError("--finetune and --linear-probe: choose one of them")
    if data is not None and data.suffix in (".h5", ".hdf5") and data.is_file():
        if file is not None:
            raise UsageError(f"{file}: give the data folder first, then the HDF5 file")
        data, file = None, data
    chosen = tuple(name.strip() for name in arms.split(",")) if arms else QUICK if quick else arm_names()
    if not controls:
        chosen = tuple(name for name in chosen if name in arm_names(controls=False))
    file = file or _newest_store()
    with Store(file) as store:
        known = store.header.options
        split_seed = _split_seed(store.header)
    if data is None:
        data = Path(str(known.get("data", "")))
        if not data.exists():
            raise DataError(f"{file}: was made from {data}, which is not here; name it: dagaug score DATA {file}")
    terminal.say(f"Scoring {file} on the test images of {data}")
    layout = str(known.get("layout", "auto"))
    dataset = read_dataset(data, layout=layout, seed=split_seed)
    framing = known.get("framing")
    size = size or (int(framing["size"]) if isinstance(framing, dict) else 64)
    stored = known.get("per_class")
    pretrained = (finetune or linear_probe) and classifier == "auto"
    options = ScoreOptions(
        fit=FitOptions(
            name=LITE0 if pretrained else network_for(classifier, size),
            size=size,
            steps=steps or (_QUICK_STEPS if quick else None),
            batch_size=batch_size,
            synthetic_share=synthetic_share,
            weights=weights,
        ),
        seeds=seeds or (QUICK_SEEDS if quick else 5),
        seed=seed,
        per_class=per_class or (int(stored) if isinstance(stored, int) else None),
        arms=chosen,
        others=tuple(_named_path(text) for text in arm or ()),
        fractions=_shares("fractions", fractions),
        ratios=_shares("ratio", ratio),
        mode="linear-probe" if linear_probe else "finetune" if finetune else "scratch",
        validation=validation,
    )
    out = out or file.with_name(file.stem + "-score.json")
    result = score(
        dataset,
        file,
        options,
        checkpoint=checkpoint,
        device=pick_devices(devices, pick_device(device), every=device == "auto"),
        resume=out.with_suffix(".jsonl"),
        progress=terminal,
    )
    try:
        write_whole(out, (result.to_json() + "\n").encode())
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    terminal.result(
        json.loads(result.to_json()),
        [*score_lines(result), f"Written to {out}"],
        table=score_table(result),
        next_step=f"dagaug show {file}",
    )
    if fail_unless_helps and result.verdict != "helps":
        raise typer.Exit(_NO_HELP)


def _named_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--arm {text}: write NAME=PATH")
    return name, Path(path)


def _shares(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError(f"--{option} {text}: numbers with commas between them") from error


@app.command()
def show(
    what: Annotated[
        Path | None, typer.Argument(help="HDF5 file of dagaug augment, or a run folder; the newest file by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML page, or folder of figures, to write; beside what is shown by default.")
    ] = None,
    form: Annotated[
        ShowForm,
        typer.Option("--format", help="A page and a contact sheet; or each plot as a figure fit for a paper."),
    ] = ShowForm.page,
    data: Annotated[
        Path | None, typer.Option(help="Data folder, if it is not where the file says: for boxes and real images.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=200, help="Morphs on the contact sheet.")] = 24,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: check schema, counts, indices, hashes and every image.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a contact sheet (PNG) and a page (one HTML file, no network) of a result or a training."""
    terminal = Terminal(as_json=as_json)
    what = what or _newest_store()
    if verify:
        _verify(what, terminal)
        return
    from dagaug.attention import attention_of
    from dagaug.cloud import cloud_of
    from dagaug.datasets import read_dataset
    from dagaug.engine import pick_device
    from dagaug.report import sheet_of_store, write_figures, write_report, write_run_report
    from dagaug.store import Store

    if what.is_dir():
        if form != ShowForm.page:
            raise UsageError(f"--format {form.value}: figures are made of an HDF5 file, and {what} is a folder")
        page = out or what / "report.html"
        write_run_report(what, page)
        terminal.result({"report": page}, [f"Page: {page}"])
        return
    with Store(what) as store:
        known = store.header.options
        layout, split_seed = str(known.get("layout", "auto")), _split_seed(store.header)
    root = data or (Path(str(known["data"])) if known.get("data") else None)
    run = Path(str(known.get("checkpoint", ""))).parent
    table = what.with_name(what.stem + "-score.json")
    trained = run if (run / "metrics.jsonl").is_file() else None
    score = table if table.is_file() else None
    folder = root if root is not None and root.is_dir() else None
    on = pick_device("auto")
    try:
        dataset = read_dataset(folder, layout=layout, seed=split_seed) if folder is not None else None
    except DataError as error:
        if data is not None:
            raise
        terminal.say(f"{error}; the page does without it")
        dataset = None
    cloud, unclouded = cloud_of(what, dataset, seed=seed, device=on)
    if form != ShowForm.page:
        figures = out or what.with_name(what.stem + "-figures")
        kind: Literal["png", "pdf"] = "png" if form == ShowForm.png else "pdf"
        files = write_figures(
            what, figures, kind, run=trained, score=score, data=folder, cloud=cloud, rows=rows, seed=seed
        )
        if cloud is None:
            terminal.say(f"No figure of the data cloud: {unclouded}")
        terminal.result({"figures": files}, [f"Figures in {figures}: {', '.join(file.name for file in files)}"])
        return
    page = out or what.with_suffix(".html")
    sheet = page.with_suffix(".png")
    sheet_of_store(what, sheet, rows=rows, seed=seed, data=folder)
    attention, unattended = attention_of(what, dataset, device=on)
    write_report(
        what, page, run=trained, score=score, data=folder,
        attention=attention, unattended=unattended, cloud=cloud, unclouded=unclouded,
    )  # fmt: skip
    terminal.result({"report": page, "sheet": sheet}, [f"Page: {page}", f"Contact sheet: {sheet}"])


def _verify(file: Path, terminal: Terminal) -> None:
    from dagaug.store import verify

    if file.is_dir():
        raise UsageError(f"--verify {file}: a folder; give the HDF5 file of dagaug augment")
    found = verify(file, progress=terminal)
    lines = [
        f"{file} is whole: {found.images:,} images ({found.real:,} real, {found.synthetic:,} synthetic), "
        f"{found.candidates:,} candidates, {found.classes:,} classes, {found.files:,} files, {found.skipped:,} skipped",
        f"Checked: type, shape and place of {found.datasets} datasets; the range of every index; SHA-256 of "
        f"{found.images:,} images, {found.data_bytes:,} bytes; {found.decoded:,} images decoded to their sizes; every "
        "morph against its candidate; SHA-256 of everything else",
        f"Content: {found.content_sha256}",
    ]
    terminal.result({"file": file, **asdict(found)}, lines)


@app.command()
def metrics(
    file: Annotated[Path, typer.Argument(help="HDF5 file of dagaug augment.")],
    data: OptionalData = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Compare with true answers instead: a folder of built-in birds, or a CSV source,reference[,truth"
            "[,truth_mask,reference_mask]] with files relative to it."
        ),
    ] = None,
    oracle: Annotated[Path | None, typer.Option(help="With --pairs: saved classifier that tells identities.")] = None,
    oracle_data: Annotated[
        Path | None, typer.Option(help="With --pairs: folder with plenty of images to train the oracle on instead.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="timm name or lite0 of the network of features; the classifier that judges by default."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the network of --features.")] = None,
    lpips: Annotated[
        Path | None, typer.Option(help="torchvision's weights of AlexNet, VGG16 or SqueezeNet 1.1, to measure LPIPS.")
    ] = None,
    classifier: Classifier = "auto",
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of the classifier or oracle.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images; the training's patch size by default.")] = None,
    per_class: PerClass = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Model whose attended regions are measured; the file's own by default.")
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, help="PCK's tolerance in parts of a box's larger side.")] = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how real, varied and recognisable synthetic images are, or how right morphs of known pairs."""
    import os

    from dagaug.datasets import read_dataset
    from dagaug.engine import pick_device
    from dagaug.store import Store

    terminal = Terminal(as_json=as_json, quiet=quiet)
    with Store(file) as store:
        known, split_seed = store.header.options, _split_seed(store.header)
    if data is None:
        data = Path(str(known.get("data", "")))
        if not known.get("data") or not data.exists():
            raise DataError(f"{file}: its data folder {data} is not here; name it: dagaug metrics {file} DATA")
    dataset = read_dataset(data, layout=str(known.get("layout", "auto")), seed=split_seed)
    on = pick_device(device)
    keeps = os.access(file.resolve().parent, os.W_OK)
    if pairs is not None:
        from dagaug.truth import evaluate_pairs

        compared = evaluate_pairs(
            file, dataset, pairs,
            oracle=oracle, oracle_data=oracle_data, steps=steps, seed=seed, device=on,
            cache=file.with_name(f"{file.stem}-oracle.safetensors") if keeps else None, workers=workers,
            progress=terminal,
        )  # fmt: skip
        terminal.result(asdict(compared), pairs_lines(compared), table=pairs_table(compared))
        return
    if oracle is not None or oracle_data is not None:
        raise UsageError("--oracle and --oracle-data tell the identity of morphs of known pairs: give --pairs, too")
    from dagaug.evaluate import EvaluateOptions, evaluate

    options = EvaluateOptions(
        features=features, weights=weights, classifier=classifier, steps=steps, size=size, per_class=per_class,
        lpips=lpips, alpha=alpha, seed=seed,
    )  # fmt: skip
    measured = evaluate(
        file, dataset, options,
        device=on, checkpoint=checkpoint, workers=workers, progress=terminal,
        cache=file.with_name(f"{file.stem}-judge.safetensors") if keeps else None,
    )  # fmt: skip
    terminal.result(asdict(measured), metrics_lines(measured), table=metrics_table(measured))


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="HDF5 file of dagaug augment.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[
        ExportForm, typer.Option(help="Class folders, tar shards of WebDataset, or a table with image files.")
    ] = ExportForm.imagefolder,
    synthetic_only: Annotated[bool, typer.Option("--synthetic-only", help="Leave the real images out.")] = False,
    shard_images: Annotated[
        int | None, typer.Option(min=1, help="Images in one tar of a webdataset; 1,000 by default.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the images for other tools, byte for byte, with labels, splits and where each comes from."""
    from dagaug.export import export

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = export(
        file,
        out,
        to=to.value,
        synthetic_only=synthetic_only,
        shard_images=shard_images,
        overwrite=overwrite,
        progress=terminal,
    )
    lines = [f"{done.images} images ({done.real} real, {done.synthetic} synthetic) in {done.out}"]
    lines += [f"The class {name!r} is written as {written!r}" for name, written in done.renamed]
    terminal.result(asdict(done), lines, next_step=f"read it with other tools; back: dagaug import {out} --out FILE.h5")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of dagaug export, of any form.")],
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="An image that was deleted is an error.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the HDF5 file again that a folder was exported from, without the images that were deleted from it."""
    from dagaug.reimport import reimport

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = reimport(folder, out, overwrite=overwrite, strict=strict, progress=terminal)
    lines = [f"{done.images} images ({done.real} real, {done.synthetic} synthetic) in {done.out}"]
    if done.removed:
        lines.append(f"{done.removed} images were exported and are no longer in {folder}; they are left out")
    terminal.result(asdict(done), lines, next_step=f"dagaug score DATA {out}")


@app.command()
def translate(
    source: Annotated[Path, typer.Argument(help="Folder of images of the source domain.")],
    out: Annotated[Path, typer.Option(help="Folder to write, with the same file names; or an HDF5 file, FILE.h5.")],
    checkpoint: Checkpoint = None,
    encoding: Annotated[
        Encoding | None, typer.Option(help="How an HDF5 file stores images, png by default; folders get PNG files.")
    ] = None,
    keep_size: Annotated[bool, typer.Option("--keep-size/--patch-size", help="Write images in their own size.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at a time.")] = 64,
    device: Device = "auto",
    workers: Workers = 2,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Translate a folder from one domain to another with a model trained on two folders (a preset of Table 4)."""
    from dagaug.checkpoint import newest_run
    from dagaug.models import load_model
    from dagaug.translate import translate
    from dagaug.translatefile import translate_to_file

    terminal = Terminal(as_json=as_json, quiet=quiet)
    to_file = out.suffix.lower() in (".h5", ".hdf5")
    if encoding not in (None, Encoding.png) and not to_file:
        raise UsageError(f"--encoding {encoding}: only for an HDF5 file (--out FILE.h5); folders get PNG files")
    run = partial(translate_to_file, encoding=(encoding or Encoding.png).value) if to_file else translate
    done = run(
        load_model(checkpoint or newest_run()),
        source,
        out,
        device=device,
        workers=workers,
        batch_size=batch_size,
        keep_size=keep_size,
        overwrite=overwrite,
        strict=strict,
        progress=terminal,
    )
    lines = [f"{done.images} images translated into {done.out}"]
    lines += [f"{done.found} were there from an earlier call"] if done.found else []
    lines += [f"{len(done.skipped)} files could not be read; they are listed in {done.out}"] if done.skipped else []
    terminal.result(asdict(done), lines)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write; the same command again goes on.")] = Path("dagaug-demo"),
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, 480 by default.")] = None,
    refs: Annotated[int, typer.Option(min=1, help="References for each source.")] = 10,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each arm of the score.")] = 3,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole way on the built-in birds: data, train, augment, score, report. About eleven minutes on two cores."""
    import json

    from dagaug.demo import run_demo

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = run_demo(out, steps=steps, refs=refs, seeds=seeds, seed=seed, device=device, watch=_watch, progress=terminal)
    terminal.result(
        {"report": done.report, "sheet": done.sheet, "score": json.loads(done.scored.to_json())},
        [
            *score_lines(done.scored),
            f"{done.augmented.kept} of {done.augmented.candidates} candidates kept: {done.augmented.out}",
            f"Pictures of morphs: {done.sheet}",
            f"Report: {done.report}",
        ],
        table=score_table(done.scored),
        next_step=f"open {done.report}, then your own images: dagaug train DATA",
    )
