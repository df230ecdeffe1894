"""The command line: the Typer app with all commands.

A command parses its options, calls one function and prints the result. It imports heavy modules when it runs, so that
``--help`` stays fast.
"""

from typing import Annotated

import typer

from dagaug.cli.augment import augment
from dagaug.cli.config_file import ConfigurableCommand
from dagaug.cli.demo import demo
from dagaug.cli.exchange import export, import_
from dagaug.cli.metrics import metrics
from dagaug.cli.push import push
from dagaug.cli.sample_data import sample_data
from dagaug.cli.score import score
from dagaug.cli.show import show
from dagaug.cli.train import train
from dagaug.cli.translate import translate

__all__ = ["app"]

app = typer.Typer(
    name="dagaug",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Data augmentation for fine-grained images: redraw each image in the pose of another (DA-GAN), keep the "
    "results that a classifier recognises, and train better classifiers on them.",
    epilog="Start with [bold]dagaug demo[/bold], or: dagaug sample-data ./cub; dagaug train ./cub; "
    "dagaug augment ./cub --refs 10; dagaug score",
)


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


for _command in (sample_data, train, augment, score, show, metrics, export, import_, push, translate, demo):
    app.command(_command.__name__.strip("_").replace("_", "-"), cls=ConfigurableCommand)(_command)
