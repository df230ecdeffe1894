"""`dagaug augment`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.parameters import (
    Background,
    Checkpoint,
    Classifier,
    Data,
    Device,
    Encoding,
    Frame,
    Json,
    Keep,
    Layout,
    LayoutOption,
    Merge,
    Overwrite,
    PerClass,
    Quiet,
    Seed,
    Strict,
    Weights,
    Where,
    Workers,
)
from dagaug.cli.shared import build_options
from dagaug.cli.terminal import Terminal
from dagaug.runtime.errors import UsageError

__all__ = ["augment"]


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
    from dagaug.augment.estimate import estimate
    from dagaug.augment.options import AugmentOptions
    from dagaug.augment.run import augment as run_augment
    from dagaug.augment.run import skipped_log
    from dagaug.data.layouts import read_dataset
    from dagaug.model.checkpoint import newest_run
    from dagaug.model.trained_model import JUDGES_FILE, load_model

    terminal = Terminal(as_json=as_json, quiet=quiet)
    dataset = read_dataset(data, layout=layout.value, seed=seed)
    model = load_model(checkpoint or newest_run())
    drawn = model.card.split_seed
    if drawn is not None and dataset.split_seed not in (None, drawn):
        dataset = read_dataset(data, layout=layout.value, seed=drawn)  # what the training left unseen is tested
    if per_class is None and model.card.per_class is not None:
        per_class = model.card.per_class
        terminal.say(f"Using the first {per_class} training images of each class, as the training did (--per-class)")
    options = build_options(
        AugmentOptions,
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
        guess = estimate(model, dataset, options, out, device=device, workers=workers, merge=merge.value)
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
        from dagaug.augment.ray_executor import RayExecutor

        executor = RayExecutor(ray_address, ray_workers, device=device)
    elif ray_address is not None or ray_workers is not None:
        raise UsageError("--ray-address and --ray-workers: only with --engine ray")
    done = run_augment(
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
        log = skipped_log(done.out)
        lines.append(f"{len(done.skipped)} files skipped, listed in the file and in {log.name}; the first:")
        lines.append(f"{first.path}: {first.reason}; when they can be read: the same command with --retry-failed")
    terminal.result(asdict(done), lines, next_step="dagaug score    (pictures: dagaug show)")
