"""Uploads: what is sent, the card, that nothing of a person is replaced, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_server import Hub, connect
from making_stores import SHARDS, header, shard, write

from dagaug.exchange.export import export
from dagaug.exchange.reimport import reimport
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hub.upload import Pushed, Upload, kind_of, plan_upload, push
from dagaug.runtime.errors import CheckpointError, DagaugError, HubError, StoreError, UsageError
from dagaug.runtime.unedited_texts import stamped

BRANCH = "refs-10"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write(tmp_path / "cub.h5")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "sheets").mkdir(parents=True)
    for name in ("model.safetensors", "model.json", "options.json", "sheets/step-1.png", "cub.h5", "notes.pkl"):
        (folder / name).write_bytes(name.encode() * 30_000)
    return folder


def planned(path: Path, card: str = "card", licence: str | None = None) -> Upload:
    return plan_upload(path, lambda licence: f"---\nlicense: {licence}\n---\n{card}", licence=licence)


def card_text(card: str = "card", licence: str = "unknown") -> str:
    return stamped(f"---\nlicense: {licence}\n---\n{card}")


def pushed(path: Path, repository: str, card: str = "card", licence: str | None = None, **options: object) -> Pushed:
    return push(planned(path, card, licence), repository, **options)  # type: ignore[arg-type]


def refused(path: Path, repository: str, error: type[DagaugError] = HubError, **options: object) -> str:
    with pytest.raises(error) as caught:
        pushed(path, repository, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what is uploaded


def test_a_file_becomes_a_repository_of_data_with_a_card(hub: Hub, store: Path) -> None:
    done = pushed(store, "someone/data", private=True)
    repository = hub.repositories["dataset", "someone/data"]
    assert repository.private
    assert repository.files()["cub.h5"] == store.read_bytes()
    assert repository.files()["README.md"].decode() == card_text()
    assert done.url == f"{hub.url}/datasets/someone/data"
    assert (done.commit, done.files, done.card_kept) == (repository.branches["main"], 2, False)
    assert done.size == store.stat().st_size + len(card_text())


def test_of_a_run_its_own_files_are_uploaded_and_no_others(hub: Hub, run: Path) -> None:
    pushed(run, "someone/birds")
    files = hub.repositories["model", "someone/birds"].files()
    assert set(files) == {
        ".gitattributes", "README.md", "model.json", "model.safetensors", "options.json", "sheets/step-1.png",
    }  # fmt: skip
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert any("/complete" in request for request in hub.requests)  # in parts, as it is large
    assert not hub.repositories["model", "someone/birds"].private


@pytest.mark.parametrize("in_stream", [False, True])
def test_an_uploaded_export_can_be_imported_again(
    hub: Hub, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_stream: bool
) -> None:
    """Also by the library's stream of commits, which it uses where hf_xet is installed."""
    if in_stream:
        pytest.importorskip("hf_xet")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
        hub.regular_only = True
    folder = tmp_path / "folders"
    export(store, folder)
    done = pushed(folder, "someone/folders")
    files = hub.repositories["dataset", "someone/folders"].files()
    assert files["README.md"].decode() == card_text()
    assert done.commit == hub.repositories["dataset", "someone/folders"].branches["main"]
    del files[".gitattributes"]
    for name, content in files.items():
        (tmp_path / "back" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "back" / name).write_bytes(content)
    reimport(tmp_path / "back", tmp_path / "back.h5")
    assert (tmp_path / "back.h5").read_bytes() == store.read_bytes()


def test_a_branch_is_made_and_the_others_stay(hub: Hub, store: Path) -> None:
    hub.add("dataset", "someone/data", {"old.txt": b""})
    before = dict(hub.repositories["dataset", "someone/data"].branches)
    for _ in range(2):
        done = pushed(store, "someone/data", revision=BRANCH)
    branches = hub.repositories["dataset", "someone/data"].branches
    assert branches == before | {BRANCH: done.commit}
    assert "cub.h5" in hub.repositories["dataset", "someone/data"].files(BRANCH)


def test_the_same_upload_again_changes_nothing(hub: Hub, store: Path, run: Path, tmp_path: Path) -> None:
    export(store, tmp_path / "folders")
    for path, name in ((store, "data"), (run, "birds"), (tmp_path / "folders", "folders")):
        first = pushed(path, f"someone/{name}")
        sent = len(hub.blobs)
        assert pushed(path, f"someone/{name}") == first
        assert len(hub.blobs) == sent


# ---- cards


def test_a_card_that_a_person_changed_on_the_hub_is_kept_until_its_replacement_is_asked_for(
    hub: Hub, store: Path
) -> None:
    pushed(store, "someone/data", "first")
    assert not pushed(store, "someone/data", "second").card_kept
    repository = hub.repositories["dataset", "someone/data"]
    assert repository.files()["README.md"].decode() == card_text("second")
    repository.commit("main", {"README.md": b"mine"})
    done = pushed(store, "someone/data", "third")
    assert (done.card_kept, done.files, repository.files()["README.md"]) == (True, 1, b"mine")
    assert not pushed(store, "someone/data", "third", replace_card=True).card_kept
    assert repository.files()["README.md"].decode() == card_text("third")


def test_a_card_that_a_person_wrote_in_the_folder_is_the_card(hub: Hub, run: Path) -> None:
    (run / "README.md").write_text(stamped("of an earlier version"))
    assert planned(run, "new").card() == card_text("new")
    (run / "README.md").write_text("mine")
    pushed(run, "someone/birds")
    assert hub.repositories["model", "someone/birds"].files()["README.md"] == b"mine"
    assert "state the licence there" in refused(run, "someone/birds", UsageError, licence="cc-by-4.0")


def test_a_stated_licence_stays_until_another_one_is_stated(hub: Hub, store: Path) -> None:
    repository = "someone/data"
    for licence, found in ((None, "unknown"), ("cc-by-4.0", "cc-by-4.0"), (None, "cc-by-4.0"), ("unknown", "unknown")):
        pushed(store, repository, licence=licence)
        assert hub.repositories["dataset", repository].files()["README.md"].decode() == card_text("card", found)


def test_a_licence_that_the_hub_does_not_know_is_its_own_message(hub: Hub, store: Path) -> None:
    assert '"license" must be one of unknown' in refused(store, "someone/data", licence="mine")


# ---- what is refused


def test_without_a_token_nothing_is_asked(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connect(monkeypatch, hub, tmp_path, token=None)
    assert refused(store, "someone/data").startswith("no token of the hub was found; set HF_TOKEN")
    assert hub.requests == []


def test_a_token_without_the_right_and_a_hub_that_fails_are_one_line(hub: Hub, store: Path) -> None:
    hub.read_only = True
    assert "someone/data: the token may not write there" in refused(store, "someone/data")
    hub.read_only, hub.broken = False, True
    assert "someone/data: the hub fails at the moment (status 500)" in refused(store, "someone/data")


def test_a_name_of_the_other_type_is_refused(hub: Hub, store: Path, run: Path) -> None:
    hub.add("model", "someone/birds", {})
    hub.add("dataset", "someone/data", {})
    assert "is a repository of a model already" in refused(store, "someone/birds")
    assert "is a repository of data already" in refused(run, "someone/data")


def test_nothing_private_goes_into_a_public_repository(hub: Hub, store: Path) -> None:
    hub.add("dataset", "someone/data", {})
    assert "exists and is public" in refused(store, "someone/data", UsageError, private=True)
    assert hub.repositories["dataset", "someone/data"].files() == {}


def test_only_files_exports_and_finished_runs_are_uploaded(tmp_path: Path, store: Path) -> None:
    assert kind_of(store) == "file"
    with pytest.raises(UsageError, match="no such file or folder"):
        kind_of(tmp_path / "nothing")
    with pytest.raises(UsageError, match="neither a finished run nor an export"):
        kind_of(tmp_path)
    (tmp_path / "state.safetensors").touch()
    with pytest.raises(CheckpointError, match="the training is not finished"):
        kind_of(tmp_path)
    (tmp_path / "x.h5").write_text(json.dumps({}))
    with pytest.raises(StoreError):
        planned(tmp_path / "x.h5")


def test_a_file_without_its_images_is_refused(tmp_path: Path) -> None:
    with open_shard_folder(tmp_path / "v.h5", {"encoding": "png"}) as folder:
        for index in range(SHARDS):
            folder.write(index, shard(index))
        virtual = folder.merge(header(), SHARDS, how="virtual")
    with pytest.raises(StoreError, match="its images are in a folder of shards"):
        planned(virtual)
