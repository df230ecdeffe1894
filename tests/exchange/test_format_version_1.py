"""Files and exports that dagaug 0.1.0 wrote are still exported and imported, without any change of a byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from old_files import EXPECTED, EXPORT, old_file

from dagaug.exchange.export import Format, export
from dagaug.exchange.reimport import reimport
from dagaug.hdf5.reader import Store
from dagaug.hdf5.verify import verify


@pytest.mark.parametrize("to", ["imagefolder", "webdataset", "csv"])
@pytest.mark.parametrize("name", ["jpeg", "png", "raw"])
def test_an_old_file_survives_export_and_import(tmp_path: Path, name: str, to: Format) -> None:
    export(old_file(name), tmp_path / "out", to=to)
    reimport(tmp_path / "out", tmp_path / "back.h5")
    assert (tmp_path / "back.h5").read_bytes() == old_file(name).read_bytes()


def test_an_old_virtual_file_becomes_a_plain_file_of_the_same_content(tmp_path: Path) -> None:
    export(old_file("virtual"), tmp_path / "out", to="webdataset")
    reimport(tmp_path / "out", tmp_path / "back.h5")
    with Store(tmp_path / "back.h5") as store, Store(old_file("virtual")) as virtual:
        assert store.hashes() == virtual.hashes()
        assert [store.encoded(row) for row in range(len(store))] == [virtual.encoded(row) for row in range(len(store))]
    assert verify(tmp_path / "back.h5").content_sha256 == EXPECTED["virtual"]["content_sha256"]


def test_an_old_export_becomes_the_file_that_it_came_from(tmp_path: Path) -> None:
    reimport(EXPORT, tmp_path / "back.h5")
    assert (tmp_path / "back.h5").read_bytes() == old_file("raw").read_bytes()
