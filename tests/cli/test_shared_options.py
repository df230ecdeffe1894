"""Choices of the command line are those of the library, which it does not import for ``--help``."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer.main

from dagaug.augment.options import AugmentOptions
from dagaug.cli.app import app
from dagaug.cli.shared_options import (
    BackgroundChoice,
    CropChoice,
    EncodingChoice,
    ExportChoice,
    FitChoice,
    FrameChoice,
    KeepChoice,
    LayoutChoice,
    MergeChoice,
    ReferencesChoice,
)
from dagaug.data.layouts import LAYOUTS
from dagaug.data.object_patches import Framing
from dagaug.exchange.export import Format
from dagaug.hdf5.merge import Merge

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def field(record: Any, name: str) -> set[str]:
    return set(get_args(record.model_fields[name].annotation))


@pytest.mark.parametrize(
    ("choice", "library"),
    [
        (BackgroundChoice, field(AugmentOptions, "background")),
        (KeepChoice, field(AugmentOptions, "keep")),
        (ReferencesChoice, field(AugmentOptions, "references")),
        (FrameChoice, field(AugmentOptions, "frame")),
        (EncodingChoice, field(AugmentOptions, "encoding")),
        (CropChoice, field(Framing, "crop")),
        (FitChoice, field(Framing, "fit")),
        (ExportChoice, set(get_args(Format))),
        (MergeChoice, set(get_args(Merge))),
        (LayoutChoice, {"auto", *LAYOUTS}),
    ],
)
def test_a_choice_offers_what_the_library_takes(choice: Any, library: set[str]) -> None:
    assert set(get_args(choice)) == library


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda command: command.name)
def test_help_shows_every_value_of_every_choice(command: Any) -> None:
    """In the type column, or in the text of an option that has a metavar."""
    for name, annotation in get_type_hints(command.callback, include_extras=True).items():
        for option in getattr(annotation, "__metadata__", ()):
            values = get_args(annotation.__origin__) if get_origin(annotation.__origin__) is Literal else ()
            assert option.metavar is None or all(value in option.help for value in values), name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_a_help_text_that_is_a_phrase(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if parameter.name != "help":
            assert parameter.help[:1].isupper() or parameter.help.startswith("torchvision"), parameter.name
            assert parameter.help.endswith("."), parameter.name
