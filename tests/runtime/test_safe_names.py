from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagaug.runtime.safe_names import safe_names

RESERVED = ("train", "provenance.csv")

HOSTILE = (
    "../x",
    "/etc/passwd",
    "",
    ".",
    "..",
    ".hidden",
    "a" * 5000,
    "a" * 5000 + "b",
    "nul\0inside",
    "two\r\nlines",
    "C:\\x",
    "<script>",
    "\udcff",
    "Zaunkönig",
    "wren",
    "Wren",
    "train",
    "provenance.csv",
    "a/b",
    "a_b",
    '=1+1,"x"',
)


def safe(names: Sequence[str], folders: Sequence[str]) -> None:
    assert len({folder.casefold() for folder in folders}) == len(folders) == len(names)
    for folder in folders:
        assert 0 < len(folder.encode()) <= 255
        assert not set(folder) & set('/\\\0<>:"|?*\r\n')
        assert folder == folder.strip(" .")
        assert folder.isprintable()


def test_hostile_class_names_become_distinct_safe_folders() -> None:
    folders = safe_names(HOSTILE, RESERVED)
    safe(HOSTILE, folders)
    of = dict(zip(HOSTILE, folders, strict=True))
    assert of["Zaunkönig"] == "Zaunkönig"
    assert of["wren"] == "wren"
    assert of["a_b"] == "a_b"  # safe as it is, so "a/b" has to take another
    assert of["a/b"] == "a_b--2"
    assert of["train"] == "train--2"


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.text(st.characters(), max_size=300), max_size=12))
def test_any_class_names_become_distinct_safe_folders(names: list[str]) -> None:
    safe(names, safe_names(names))
