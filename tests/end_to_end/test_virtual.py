"""Virtual files, whose images stay in shards: equal to copied files for every reader, and confined to their folder."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from making_stores import MORPHS, REAL, SHARDS, header, shard

from dagaug.hdf5.merge import Merge
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import parts_folder
from dagaug.hdf5.torch_dataset import AugmentedDataset
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import StoreError

COUNT = REAL + 2 * MORPHS


def made(target: Path, how: Merge = "virtual", *, overwrite: bool = False, encoding: str = "png") -> Path:
    with open_shard_folder(target, {"encoding": encoding}, overwrite=overwrite) as run:
        for index in range(SHARDS):
            run.write(index, shard(index, encoding))
        return run.merge(header(encoding), SHARDS, how=how)


def shards_of(target: Path) -> Path:
    (folder,) = target.parent.glob(f"{target.name}.shards-*")
    return folder


@pytest.fixture
def virtual(tmp_path: Path) -> Path:
    return made(tmp_path / "x.h5")


def test_it_has_the_content_of_the_plain_file_and_no_image_twice(tmp_path: Path) -> None:
    copy, virtual = made(tmp_path / "copy.h5", "copy"), made(tmp_path / "virtual.h5")
    with Store(copy) as whole, Store(virtual) as pieces:
        assert pieces.content_sha256() == whole.content_sha256()
        assert [pieces.encoded(row) for row in range(COUNT)] == [whole.encoded(row) for row in range(COUNT)]
        rows = [REAL + MORPHS, 0, REAL, REAL - 1, COUNT - 1]
        for one, other in zip(pieces.read(rows), whole.read(rows), strict=True):
            np.testing.assert_array_equal(one, other)
        assert virtual.stat().st_size < copy.stat().st_size
    assert verify(virtual).content_sha256 == verify(copy).content_sha256
    assert not parts_folder(virtual).exists()


def test_other_programs_read_the_images_too(virtual: Path) -> None:
    with Store(virtual) as store:
        expected = b"".join(store.encoded(row) for row in range(COUNT))
    with h5py.File(virtual) as file:
        assert file["images/data"].is_virtual
        assert file["images/data"][()].tobytes() == expected


def test_it_can_be_moved_and_renamed_together_with_its_folder_only(virtual: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    shutil.copytree(shards_of(virtual), tmp_path / "there" / shards_of(virtual).name)
    verify(shutil.copy(virtual, tmp_path / "there" / "renamed.h5"))
    alone = tmp_path / "alone"
    alone.mkdir()
    with (
        Store(shutil.copy(virtual, alone / "x.h5")) as store,
        pytest.raises(StoreError, match=r"index-00000\.h5: cannot be read \(No such file.*keep it beside x\.h5"),
    ):
        store.image(0)


def test_a_data_set_over_it_pickles_and_reads_batches_over_shards(virtual: Path) -> None:
    data = pickle.loads(pickle.dumps(AugmentedDataset(virtual, split="all")))
    with Store(virtual) as store:
        for row, (image, label) in enumerate(data.__getitems__(range(COUNT))):
            np.testing.assert_array_equal(image, store.image(row))
            assert label == store.images.label[row]


def test_replacing_it_removes_its_old_shards_and_keeps_the_new_ones(virtual: Path) -> None:
    before = shards_of(virtual)
    made(virtual, overwrite=True, encoding="jpeg")
    assert shards_of(virtual) != before  # and there is but one
    verify(virtual)
    made(virtual, "copy", overwrite=True)
    assert [path.name for path in virtual.parent.iterdir()] == ["x.h5"]


def test_an_interrupted_merge_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.h5"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, other: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            made(target)
    assert not target.exists()
    verify(made(target))


# ---- hostile files


def with_sources(virtual: Path, name: str, *, gap: int = 0, dataset: str = "images/data") -> Path:
    """The same file with its first source under another name, or with a gap."""
    hostile = virtual.with_name("hostile.h5")
    with h5py.File(virtual) as old, h5py.File(hostile, "w", libver="v110") as new:
        for key, value in old.attrs.items():
            new.attrs.create(key, np.bytes_(value) if isinstance(value, bytes | str) else value)
        for group in (old, old["images"], old["candidates"], old["skipped"]):
            for key, item in group.items():
                where = f"{group.name}/{key}"
                if isinstance(item, h5py.Dataset) and where != "/images/data":
                    new.create_dataset(where, data=item[()], dtype=item.dtype)
        sources = old["images/data"].virtual_sources()
        layout = h5py.VirtualLayout(old["images/data"].shape, np.uint8)
        for number, source in enumerate(sources):
            (first,), (last,) = source.vspace.get_select_bounds()
            file = name if number == 0 else source.file_name
            length = last - first + 1 - (gap if number == 0 else 0)
            layout[first : first + length] = h5py.VirtualSource(file, dataset, (length,), np.uint8)
        new.create_virtual_dataset("images/data", layout)
    return hostile


def test_the_same_sources_written_by_another_program_are_read(virtual: Path) -> None:
    hostile = with_sources(virtual, f"{shards_of(virtual).name}/index-00000.h5")
    with Store(hostile) as one, Store(virtual) as other:
        assert one.encoded(0) == other.encoded(0)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.h5", "../x.shards-0123456789abcdef/index-00000.h5", "x.h5", ".", "a/b/index-00000.h5"]
)
def test_sources_anywhere_else_are_refused_when_it_is_opened(virtual: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"/images/data links to .*, not to a shard; refused"):
        Store(with_sources(virtual, name))


@pytest.mark.parametrize("change", [{"gap": 1}, {"dataset": "images/label"}])
def test_other_virtual_datasets_are_refused(virtual: Path, change: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="refused"):
        Store(with_sources(virtual, f"{shards_of(virtual).name}/index-00000.h5", **change))  # type: ignore[arg-type]


def _linked_file(folder: Path) -> None:
    (folder / "index-00000.h5").rename(folder.parent / "elsewhere.h5")
    (folder / "index-00000.h5").symlink_to(folder.parent / "elsewhere.h5")


def _linked_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def _another(folder: Path) -> None:
    (folder / "index-00001.h5").replace(folder / "index-00000.h5")


def _no_shard(folder: Path) -> None:
    with h5py.File(folder / "index-00000.h5", "w", libver="v108") as file:
        file["images/data"] = np.zeros(9, np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_linked_file, "is a symbolic link; refused"),
        (_linked_folder, "is a symbolic link; refused"),
        (_another, "not the shard that x.h5 was made from"),
        (_no_shard, "attribute format is missing"),
    ],
)
def test_shards_that_are_not_its_own_are_refused(virtual: Path, change: Callable[[Path], None], message: str) -> None:
    change(shards_of(virtual))
    with Store(virtual) as store, pytest.raises(StoreError, match=message):
        store.image(0)


def test_an_image_that_changed_in_a_shard_is_found(virtual: Path) -> None:
    path = shards_of(virtual) / "index-00001.h5"
    with Store(virtual) as store:
        needle = store.encoded(REAL)
    content = path.read_bytes()
    at = content.index(needle) + len(needle) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(StoreError, match=f"image {REAL} is damaged"):
        verify(virtual)
