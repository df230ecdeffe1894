from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagaug.runtime.errors import DagaugError, ImageError, UsageError, in_one_line


def test_the_message_names_option_and_remedies_as_python_does() -> None:
    error = UsageError("give at least 1", option="refs", value=0, remedies={"overwrite": True, "out": None})
    assert str(error) == "refs=0: give at least 1; try overwrite=True or another out"
    assert error.describe(lambda option, value: f"--{option}") == "--refs: give at least 1; try --overwrite or --out"


@pytest.mark.parametrize(
    "error", [ImageError("x.png", "empty file"), UsageError("give at least 1", option="refs", value=0)]
)
def test_errors_survive_the_way_out_of_a_worker_process(error: DagaugError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_an_image_error_names_the_file_and_the_reason() -> None:
    error = ImageError("x.png", "empty file")
    assert (str(error), error.path, error.reason) == ("x.png: empty file", Path("x.png"), "empty file")


@given(st.text(st.characters(), max_size=50))
def test_only_unprintable_characters_are_escaped(text: str) -> None:
    assert in_one_line(text).isprintable()
    assert (in_one_line(text) == text) == text.isprintable()
    in_one_line(text).encode()


def test_line_breaks_and_undecodable_bytes_are_escaped() -> None:
    assert in_one_line("Zaunkönig\r\n\udcff") == "Zaunkönig\\r\\n\\udcff"
