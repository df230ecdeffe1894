"""The reader: round trips, and files that break the specification."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from altered_files import TOTAL, altered, linked_to, replaced, seeds, with_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making_stores import (
    CANDIDATES,
    MORPHS,
    REAL,
    SIZE,
    encode,
    header,
    picture,
    rewrite_plainly,
    write,
)

from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.torch_dataset import AugmentedDataset
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import StoreError


def same_header(first: object, second: object) -> bool:
    return all(
        np.array_equal(value, vars(second)[name]) if isinstance(value, np.ndarray) else value == vars(second)[name]
        for name, value in vars(first).items()
    )


def test_the_header_comes_back_as_it_was_written(files: dict[str, Path]) -> None:
    with Store(files["png"]) as store:
        assert same_header(header(), store.header)


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_lossless_images_come_back_as_they_were(files: dict[str, Path], encoding: str) -> None:
    with Store(files[encoding]) as store:
        assert len(store) == TOTAL
        for row, seed in enumerate(seeds()):
            np.testing.assert_array_equal(store.image(row), picture(seed))
        np.testing.assert_array_equal(store.image(-1), store.image(TOTAL - 1))


def test_jpegs_come_back_close_and_as_the_same_bytes(files: dict[str, Path]) -> None:
    with Store(files["jpeg"]) as store:
        for row, seed in enumerate(seeds()):
            assert store.encoded(row) == encode(picture(seed), "jpeg")
            assert np.abs(store.image(row).astype(int) - picture(seed)).mean() < 8


def test_many_images_come_in_the_requested_order_and_do_not_share_memory(files: dict[str, Path]) -> None:
    rows = [7, 2, 7, 0, 13, 2]
    with Store(files["raw"]) as store:
        images = store.read(rows)
        images[0][:] = 0
        for row, image in zip(rows[1:], images[1:], strict=True):
            np.testing.assert_array_equal(image, picture(seeds()[row]))
        with pytest.raises(IndexError):
            store.image(TOTAL)


def test_provenance_of_morphs_is_that_of_their_candidates(files: dict[str, Path]) -> None:
    with Store(files["png"]) as store:
        images, candidates = store.images, store.candidates
    assert len(candidates) == 2 * CANDIDATES
    assert images.synthetic.tolist() == [False] * REAL + [True] * 2 * MORPHS
    assert (images.candidate[:REAL] == -1).all()
    assert np.isnan(images.confidence[:REAL]).all()
    chosen = images.candidate[REAL:]
    np.testing.assert_array_equal(candidates.image[chosen], np.arange(REAL, TOTAL))
    for name in ("source", "reference", "variant", "label", "predicted", "confidence"):
        np.testing.assert_array_equal(getattr(candidates, name)[chosen], getattr(images, name)[REAL:])


def test_other_programs_read_it_and_what_they_write_is_read(files: dict[str, Path], tmp_path: Path) -> None:
    with h5py.File(files["png"]) as file:
        assert file["classes"].asstr()[:].tolist() == list(header().classes)
        assert json.loads(file["options"].asstr()[()]) == header().options
        offset = file["images/offset"][:]
        assert file["images/data"][offset[3] : offset[4]].tobytes() == encode(picture(3), "png")
        assert file["images/synthetic"].dtype == bool
    assert verify(rewrite_plainly(files["png"], tmp_path / "plain.h5")) == verify(files["png"])


def test_a_file_without_images_is_valid(tmp_path: Path) -> None:
    with open_shard_folder(tmp_path / "empty.h5", {}) as run:
        run.merge(header(classes=(), files=(), files_label=np.zeros(0, int), files_split=np.zeros(0, int)), 0)
    assert verify(tmp_path / "empty.h5").images == 0
    assert len(AugmentedDataset(tmp_path / "empty.h5")) == 0
    assert AugmentedDataset(tmp_path / "empty.h5").weights.shape == (0,)


def test_long_names_and_names_that_are_not_utf8_come_back(tmp_path: Path) -> None:
    names = ("a" * 5000, "\udcff.jpg/../../x")
    with Store(write(tmp_path / "x.h5", classes=names)) as store:
        assert store.classes == names


def unallocated(file: h5py.File) -> None:
    del file["images/data"]
    file.create_dataset("images/data", shape=(1 << 60,), dtype="u1")


def in_another_file(file: h5py.File) -> None:
    del file["images/data"]
    file.create_dataset("images/data", shape=(64,), dtype="u1", external=[("/etc/passwd", 0, 64)])


def virtual(file: h5py.File) -> None:
    del file["images/data"]
    layout = h5py.VirtualLayout(shape=(64,), dtype="u1")
    layout[:] = h5py.VirtualSource("other.h5", "data", shape=(64,))
    file.create_virtual_dataset("images/data", layout)


HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "no format": (lambda file: file.attrs.__delitem__("format"), "attribute format is missing"),
    "other format": (lambda file: file.attrs.create("format", np.bytes_(b"x")), "its format is 'x'"),
    "vlen format": (lambda file: file.attrs.create("format", "dagaug"), "attribute format is not utf8"),
    "array format": (
        lambda file: file.attrs.create("format", np.zeros(9, "S6")),
        "attribute format is not utf8",
    ),
    "text version": (lambda file: file.attrs.create("version", np.bytes_(b"1")), "attribute version is not"),
    "newer": (lambda file: file.attrs.create("version", 2), "version 2 of the format is unknown"),
    "encoding": (lambda file: file.attrs.create("encoding", np.bytes_(b"exe")), "unknown encoding 'exe'"),
    "missing": (lambda file: file.__delitem__("images/label"), "/images/label is missing"),
    "no group": (lambda file: file.__delitem__("images"), "/images/height is missing"),
    "group": (
        lambda file: (file.__delitem__("classes"), file.create_group("classes")),
        "/classes is not a dataset",
    ),
    "soft": (linked_to("classes", h5py.SoftLink("/files")), "/classes is a link"),
    "external": (linked_to("images/data", h5py.ExternalLink("o.h5", "/d")), "/images/data is a link"),
    "external group": (linked_to("images", h5py.ExternalLink("o.h5", "/d")), "is a link; files with links are refused"),
    "type": (replaced("images/label", dtype="<f4"), "/images/label is not of type i4"),
    "byte order": (replaced("images/label", dtype=">i4"), "/images/label is not of type i4"),
    "vlen text": (
        replaced("classes", data=["a", "b"], dtype=h5py.string_dtype()),
        "/classes is not of type utf8",
    ),
    "shape": (
        replaced("images/label", data=np.zeros((TOTAL, 1), "<i4")),
        "/images/label has 2 dimensions, not 1",
    ),
    "rows": (replaced("images/label", data=np.zeros(3, "<i4")), "/images/label has 3 rows instead of 14"),
    "no shape": (replaced("images/label", data=h5py.Empty("<i4")), "/images/label"),
    "filter": (replaced("images/data", compression="gzip"), "/images/data has a filter"),
    "bomb": (
        lambda file: (
            file.__delitem__("files"),
            file.create_dataset("files", (6,), "S99999999", compression=9),
        ),
        "/files has a filter",
    ),
    "chunks": (replaced("images/data", chunks=(16,)), "/images/data is not contiguous"),
    "other file": (in_another_file, "/images/data is not contiguous"),
    "virtual": (virtual, "/images/data is virtual, but not in the way that dagaug writes"),
    "huge": (unallocated, "/images/data declares 1,152,921,504,606,846,976 bytes"),
    "label": (with_value("images/label", 2, 2), "/images/label has values outside 0 to 1"),
    "split": (with_value("images/split", 2, 2), "/images/split has values outside"),
    "source": (with_value("images/source", 2, REAL), "/images/source has values outside 0 to 5"),
    "reference": (with_value("images/reference", 2, -2), "/images/reference has values outside -1 to 5"),
    "candidate": (with_value("images/candidate", 2, 99), "/images/candidate has values outside"),
    "verdict": (with_value("candidates/verdict", 2, 9), "/candidates/verdict has values outside 0 to 1"),
    "image": (with_value("candidates/image", 2, TOTAL), "/candidates/image has values outside -1 to 13"),
    "variant": (with_value("candidates/variant", 2, 2), "/candidates/variant has values outside 0 to 1"),
    "height": (with_value("images/height", 2, 0), "/images/height has values outside"),
    "pixels": (
        lambda file: (
            with_value("images/height", 2, 99999)(file),
            with_value("images/width", 2, 99999)(file),
        ),
        "exceed 100,000,000 pixels",
    ),
    "descending": (with_value("images/offset", 2, 0), "/images/offset does not increase"),
    "beyond": (with_value("images/offset", 2, 1 << 62), "/images/offset does not increase"),
    "wrapping": (with_value("images/offset", 2, -(1 << 63)), "/images/offset does not increase"),
    "begin": (with_value("images/offset", 0, 1), "/images/offset does not begin with 0"),
    "end": (with_value("images/offset", TOTAL, -1), "/images/offset does not increase"),
    "objects group": (lambda file: file.__delitem__("objects/sha256"), "/objects/sha256 is missing"),
    "boxes": (replaced("objects/box", data=np.zeros((3, 4), "<f4")), "/objects/box has 3 rows instead of 14"),
    "box": (with_value("objects/box", 2, (8, 2, 5, 4)), "/objects/box has boxes that are not inside their images"),
    "negative box": (with_value("objects/box", 2, (8, 2, -5, 4)), "/objects/box has boxes that are not inside"),
    "half a box": (with_value("objects/box", 2, (8, 2, np.nan, 4)), "/objects/box has boxes that are not inside"),
    "endless box": (with_value("objects/box", 2, (8, 2, np.inf, 4)), "/objects/box has boxes that are not inside"),
    "masks descending": (with_value("objects/mask_offset", TOTAL - 1, 1), "/objects/mask_offset does not go from 0"),
    "masks beyond": (with_value("objects/mask_offset", 3, 1 << 62), "/objects/mask_offset does not go from 0"),
    "masks begin": (with_value("objects/mask_offset", 0, 1), "/objects/mask_offset does not go from 0"),
    "masks end": (replaced("objects/mask", data=np.zeros(9999, "u1")), "/objects/mask_offset does not end at the 9999"),
    "mask link": (linked_to("objects", h5py.ExternalLink("o.h5", "/d")), "is a link; files with links are refused"),
    "options": (replaced("options", data=np.bytes_(b"{")), "/options is not JSON"),
    "options list": (replaced("options", data=np.bytes_(b"[]")), "/options is not a JSON object"),
    "deep options": (replaced("options", data=np.bytes_(b"[" * 100_000)), "/options is not JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_breaks_the_specification_is_refused_in_one_line(
    files: dict[str, Path], tmp_path: Path, case: str
) -> None:
    change, message = HOSTILE[case]
    path = altered(files["png"], tmp_path / "x.h5", change)
    with pytest.raises(StoreError) as caught:
        Store(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text


def test_raw_images_must_have_the_bytes_that_their_size_needs(files: dict[str, Path], tmp_path: Path) -> None:
    path = altered(files["raw"], tmp_path / "x.h5", with_value("images/width", 2, SIZE + 1))
    with pytest.raises(StoreError, match="does not fit height × width × 3"):
        Store(path)


def test_other_files_are_refused_in_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "cut.h5").write_bytes(files["png"].read_bytes()[:-100])
    (tmp_path / "folder.h5").mkdir()
    for libver in ("earliest", "v110"):
        with h5py.File(tmp_path / f"{libver}.h5", "w", libver=libver) as file:
            file["x"] = 1
    for name, message in {
        "text.h5": "not a readable HDF5 file",
        "empty.h5": "not a readable HDF5 file",
        "cut.h5": "not a readable HDF5 file",
        "folder.h5": "not a file",
        "none.h5": "no such file",
        "earliest.h5": "superblock version 0, not 2 or 3",
        "v110.h5": "not a dagaug file",
    }.items():
        with pytest.raises(StoreError, match=message) as caught:
            Store(tmp_path / name)
        assert "\n" not in str(caught.value)


def use_all(path: Path) -> None:
    """Read all that a file holds."""
    with Store(path) as store:
        _ = store.header, store.images, store.candidates
        store.read(range(len(store)))
    data = AugmentedDataset(path)
    data.__getitems__(range(len(data)))
    verify(path)


@pytest.mark.parametrize("kind", ["jpeg", "raw", "plain"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_gives_success_or_a_store_error(
    files: dict[str, Path], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    source = files["png"] if kind == "plain" else files[kind]
    if kind == "plain":
        source = tmp_path / "plain.h5"
        if not source.exists():
            rewrite_plainly(files["png"], source)
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(piece)] = piece
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    (tmp_path / "x.h5").write_bytes(content)
    outcome = "fine"
    try:
        use_all(tmp_path / "x.h5")
    except StoreError as error:
        outcome = str(error)
    assert "\n" not in outcome


def test_reading_needs_no_torch() -> None:
    code = "import sys, dagaug.hdf5.reader, dagaug.hdf5.shard_folder; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("locking", [None, True, False, "best-effort"])
def test_a_file_that_this_process_has_open_with_any_locking_opens_again(
    files: dict[str, Path], locking: bool | str | None
) -> None:
    with h5py.File(files["png"], "r", locking=locking) as first, Store(files["png"]) as store:
        assert len(store) == len(first["images/label"])
