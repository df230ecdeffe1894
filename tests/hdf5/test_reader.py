from __future__ import annotations

import hashlib
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making_stores import (
    CANDIDATES,
    MORPHS,
    REAL,
    SIZE,
    Encoding,
    encode,
    header,
    picture,
    rewrite_plainly,
    shard,
    write,
)
from torch.utils.data import DataLoader, WeightedRandomSampler

from dagaug.hdf5 import layout
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import SCHEMA
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.hdf5.torch_dataset import AugmentedDataset
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import StoreError

TOTAL = REAL + 2 * MORPHS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    encodings: tuple[Encoding, ...] = ("jpeg", "png", "raw")
    return {encoding: write(folder / f"{encoding}.h5", encoding) for encoding in encodings}


def seeds() -> list[int]:
    return [*range(REAL), *range(100, 100 + MORPHS), *range(200, 200 + MORPHS)]


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


def test_many_images_come_in_the_order_asked_for_and_do_not_share_memory(files: dict[str, Path]) -> None:
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


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_verify_counts_what_is_there(files: dict[str, Path], encoding: str) -> None:
    found = verify(files[encoding])
    assert (found.images, found.synthetic, found.candidates) == (TOTAL, 2 * MORPHS, 2 * CANDIDATES)


def test_a_file_without_images_is_whole(tmp_path: Path) -> None:
    with open_shard_folder(tmp_path / "empty.h5", {}) as run:
        run.merge(header(classes=(), files=(), files_label=np.zeros(0, int), files_split=np.zeros(0, int)), 0)
    assert verify(tmp_path / "empty.h5").images == 0
    assert len(AugmentedDataset(tmp_path / "empty.h5")) == 0
    assert AugmentedDataset(tmp_path / "empty.h5").weights.shape == (0,)


def test_a_name_of_any_length_and_bytes_that_are_no_text_come_back(tmp_path: Path) -> None:
    names = ("a" * 5000, "\udcff.jpg/../../x")
    with Store(write(tmp_path / "x.h5", classes=names)) as store:
        assert store.classes == names


# Hostile and damaged files


def altered(path: Path, target: Path, change: Callable[[h5py.File], object]) -> Path:
    target.write_bytes(path.read_bytes())
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def replaced(name: str, **how: object) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        old = file[name][()]
        del file[name]
        file.create_dataset(name, **({"data": old} | how))

    return change


def with_value(name: str, row: int, value: object) -> Callable[[h5py.File], object]:
    return lambda file: file[name].__setitem__(row, value)


def linked_to(name: str, link: object) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return change


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


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_an_image_of_another_size_than_declared_is_never_decoded(
    files: dict[str, Path], tmp_path: Path, encoding: str
) -> None:
    path = altered(files[encoding], tmp_path / "x.h5", with_value("images/width", 2, 9000))
    with (
        Store(path) as store,
        pytest.raises(StoreError, match=f"image 2 is not a {encoding} of 9000 × 14 pixels"),
    ):
        store.image(2)


def test_a_png_chunk_that_declares_more_than_there_is_is_never_decoded(tmp_path: Path) -> None:
    content = shard(0)
    start = content.encoded[0].index(b"IDAT") - 4
    hostile = content.encoded[0][:start] + b"\xff" * 4 + content.encoded[0][start + 4 :]
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        run.write(0, ShardContent([hostile, *content.encoded[1:]], content.images))
        run.merge(header(), 1)
    with (
        Store(tmp_path / "x.h5") as store,
        pytest.raises(StoreError, match="image 0 is not a png"),
    ):
        store.image(0)


def test_things_that_are_no_store_are_refused_in_one_line(files: dict[str, Path], tmp_path: Path) -> None:
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


def test_verify_finds_every_changed_byte_of_every_dataset(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["png"].read_bytes()
    chance = random.Random(0)
    with h5py.File(files["png"]) as file:
        extents = [(name, file[name].id.get_offset(), file[name].id.get_storage_size()) for name in SCHEMA]
    for name, start, size in extents:
        changed = bytearray(whole)
        at = start + chance.randrange(size)
        changed[at] ^= 1
        (tmp_path / "x.h5").write_bytes(changed)
        with pytest.raises(StoreError):
            verify(tmp_path / "x.h5")
        assert size, name


def test_verify_finds_an_image_that_does_not_decode_though_hashes_fit(tmp_path: Path) -> None:
    content = shard(0)
    broken = ShardContent([b"no image", *content.encoded[1:]], content.images)
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        run.write(0, broken)
        run.merge(header(), 1)
    with pytest.raises(StoreError, match="image 0 is not a png"):
        verify(tmp_path / "x.h5")
    assert verify(tmp_path / "x.h5", decode=False).images == REAL


def test_verify_finds_candidates_that_name_another_image(files: dict[str, Path], tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["candidates/image"][0], file["candidates/image"][2] = REAL + 1, REAL

    path = altered(files["png"], tmp_path / "x.h5", change)
    with Store(path) as store:
        content = store.content_sha256()
    with h5py.File(path, "r+") as file:
        file["content_sha256"][:] = np.frombuffer(content, np.uint8)
    with pytest.raises(StoreError, match="disagree"):
        verify(path)


@pytest.mark.parametrize(
    ("column", "row", "value", "told"),
    [
        ("confidence", REAL, 0.75, f"/images/confidence: image {REAL} and its candidate 0 differ"),
        ("label", REAL + 1, 0, f"/images/label: image {REAL + 1} and its candidate 2 differ"),
        ("predicted", 2, 1, "/images: image 2 is real but has a reference, prediction or candidate"),
    ],
)
def test_verify_names_the_image_that_is_not_what_its_candidate_is(
    files: dict[str, Path], tmp_path: Path, column: str, row: int, value: float, told: str
) -> None:
    def change(file: h5py.File) -> None:
        assert file[f"images/{column}"][row] != value
        file[f"images/{column}"][row] = value

    path = altered(files["png"], tmp_path / "x.h5", change)
    with Store(path) as store:
        content = store.content_sha256()
    with h5py.File(path, "r+") as file:
        file["content_sha256"][:] = np.frombuffer(content, np.uint8)
    with pytest.raises(StoreError, match=told):
        verify(path)


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


# The data set


def test_items_are_images_and_labels_of_the_parts_asked_for(files: dict[str, Path]) -> None:
    path = files["png"]
    assert len(AugmentedDataset(path)) == 4 + 2 * MORPHS
    assert len(AugmentedDataset(path, synthetic=False)) == 4
    assert len(AugmentedDataset(path, real=False)) == 2 * MORPHS
    assert len(AugmentedDataset(path, split="all")) == TOTAL
    test = AugmentedDataset(path, split="test")
    assert test.classes == header().classes
    assert test.labels.tolist() == [0, 1]
    image, label = test[1]
    np.testing.assert_array_equal(image, picture(5))
    assert label == 1
    np.testing.assert_array_equal(test[-1][0], picture(5))
    with pytest.raises(IndexError):
        test[2]
    assert len(list(iter_items(test))) == 2
    with pytest.raises(ValueError, match="split"):
        AugmentedDataset(path, split="validation")


def iter_items(data: AugmentedDataset) -> list[object]:
    return [data[index] for index in range(len(data))]


def test_transform_and_decode_are_used(files: dict[str, Path]) -> None:
    data = AugmentedDataset(
        files["png"], transform=np.mean, decode=lambda stored: np.full((1, 1, 3), len(stored) % 256, np.uint8)
    )
    assert data[0] == (len(encode(picture(0), "png")) % 256, 0)


def test_weights_give_morphs_the_share_asked_for(files: dict[str, Path]) -> None:
    data = AugmentedDataset(files["png"], synthetic_share=0.25)
    assert data.weights.sum() == pytest.approx(1)
    assert data.weights[data.synthetic].sum() == pytest.approx(0.25)
    assert len(set(AugmentedDataset(files["png"]).weights)) == 1
    with pytest.raises(ValueError, match="synthetic_share"):
        AugmentedDataset(files["png"], synthetic_share=1.5)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_loader_with_workers_gives_what_one_process_gives(files: dict[str, Path], start: str) -> None:
    data = AugmentedDataset(files["raw"])
    data[0]  # the file is open before the workers are started
    loader = DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context=start)
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert labels.tolist() == data.labels.tolist()
    expected = [seed for row, seed in enumerate(seeds()) if row not in (4, 5)]
    for image, seed in zip(images.numpy(), expected, strict=True):
        np.testing.assert_array_equal(image, picture(seed))


def test_a_weighted_sampler_may_draw_an_image_twice(files: dict[str, Path]) -> None:
    data = AugmentedDataset(files["jpeg"], synthetic_share=0.5)
    loader = DataLoader(data, batch_size=32, sampler=WeightedRandomSampler(data.weights.tolist(), 64))
    assert sum(len(labels) for _, labels in loader) == 64


def test_it_pickles_small_and_refuses_a_file_that_was_changed_since(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(files["png"].read_bytes())
    data = AugmentedDataset(path)
    pickled = pickle.dumps(data)
    np.testing.assert_array_equal(pickle.loads(pickled)[0][0], picture(0))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StoreError, match="changed since it was opened"):
        pickle.loads(pickled)[0]


def test_neighbours_are_read_at_once(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    read = layout.ByteReader.read

    def counted(self: layout.ByteReader, start: int, count: int) -> np.ndarray:
        calls.append(count)
        return read(self, start, count)

    data = AugmentedDataset(files["raw"], split="all")
    monkeypatch.setattr(layout.ByteReader, "read", counted)
    data.__getitems__(np.random.default_rng(0).permutation(TOTAL).tolist())
    assert calls == [TOTAL * SIZE * (SIZE + 2) * 3]


def test_reading_needs_no_torch() -> None:
    code = "import sys, dagaug.hdf5.reader, dagaug.hdf5.shard_folder; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_hash_is_as_specified(files: dict[str, Path]) -> None:
    """/content_sha256 by h5py and hashlib alone, from the words of the specification."""
    with h5py.File(files["png"]) as file:
        names = ("format", "version", "encoding", "quality", "checkpoint_sha256", "seed", "created_by")
        values = {name: file.attrs[name] for name in names}
        plain = {
            name: v.decode() if isinstance(v, bytes) else v if isinstance(v, str) else int(v)
            for name, v in values.items()
        }
        total = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        for name in SCHEMA:
            if name not in ("images/data", "content_sha256"):
                array = file[name][()]
                array = np.asarray(array, file[name].dtype)
                shape = ",".join(map(str, array.shape))
                total.update(f"{name} {array.dtype.str} {shape}\n".encode() + hashlib.sha256(array.tobytes()).digest())
        assert file["content_sha256"][:].tobytes() == total.digest()
