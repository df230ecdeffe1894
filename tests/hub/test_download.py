"""Downloads: the commit is named, the cache serves without network, and wrong names are told in one line."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_server import Hub, connect

from dagaug.hub.download import RUN_FILES, Fetched, fetch_any, fetch_file, fetch_run, local_file, with_commit
from dagaug.hub.names import parse_hub_name
from dagaug.runtime.errors import HubError

DATA = {"a.h5": b"first", "README.md": b"card"}
RUN = {"model.safetensors": b"weights", "model.json": b"{}", "judge.pkl": b"pickle", "README.md": b"card"}


def run(text: str) -> Fetched:
    return fetch_run(parse_hub_name(text))


def file(text: str) -> Fetched:
    return fetch_file(parse_hub_name(text))


def refused(fetch: object, text: str) -> str:
    with pytest.raises(HubError) as caught:
        fetch(parse_hub_name(text))  # type: ignore[operator]
    message = str(caught.value)
    assert message.startswith(f"{text}: ")
    assert "\n" not in message
    return message


def test_a_run_is_fetched_with_its_commit_and_without_other_files(hub: Hub) -> None:
    commit = hub.add("model", "someone/birds", RUN)
    fetched = run("hf-hub:someone/birds")
    assert str(fetched.name) == f"hf-hub:someone/birds@{commit}"
    assert {path.name for path in fetched.path.iterdir()} == set(RUN) & set(RUN_FILES)
    assert (fetched.path / "model.safetensors").read_bytes() == b"weights"
    assert not [request for request in hub.requests if "judge.pkl" in request]


def test_the_only_hdf5_file_is_found_and_another_one_must_be_named(hub: Hub) -> None:
    commit = hub.add("dataset", "someone/data", DATA)
    fetched = file("hf-hub:someone/data")
    assert (fetched.path.read_bytes(), str(fetched.name)) == (b"first", f"hf-hub:someone/data/a.h5@{commit}")
    later = hub.add("dataset", "someone/data", {"in/b.h5": b"second"})
    assert "holds 2 HDF5 files; name one: hf-hub:someone/data/a.h5" in refused(fetch_file, "hf-hub:someone/data")
    named = file("hf-hub:someone/data/in/b.h5")
    assert (named.path.read_bytes(), named.name.revision) == (b"second", later)
    assert file(f"hf-hub:someone/data@{commit}").path.read_bytes() == b"first"


def test_a_name_with_its_commit_is_served_from_the_cache_without_a_request(hub: Hub) -> None:
    hub.add("dataset", "someone/data", DATA)
    name = with_commit("hf-hub:someone/data")
    hub.add("dataset", "someone/data", {"a.h5": b"changed"})
    hub.requests.clear()
    assert local_file(name).read_bytes() == b"first"
    assert hub.requests == []
    assert local_file("hf-hub:someone/data").read_bytes() == b"changed"
    assert (local_file("a.h5"), with_commit("a.h5")) == (Path("a.h5"), Path("a.h5"))


@pytest.mark.parametrize("offline", [True, False])
def test_without_network_the_cache_serves_and_what_it_lacks_is_one_line(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    hub.add("dataset", "someone/data", DATA)
    hub.add("model", "someone/birds", RUN)
    before = file("hf-hub:someone/data"), run("hf-hub:someone/birds")
    if offline:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    else:
        hub.broken = True
    hub.requests.clear()
    assert (file("hf-hub:someone/data"), run("hf-hub:someone/birds")) == before
    assert fetch_any(parse_hub_name("hf-hub:someone/data")) == before[0]
    assert fetch_any(parse_hub_name("hf-hub:someone/birds")) == before[1]
    assert bool(hub.requests) != offline
    for fetch in (fetch_file, fetch_run, fetch_any):
        message = refused(fetch, "hf-hub:someone/other")
        assert ("HF_HUB_OFFLINE is set" if offline else "the hub") in message


def test_a_repository_of_the_other_type_is_named_as_such(hub: Hub) -> None:
    hub.add("dataset", "someone/data", DATA)
    hub.add("model", "someone/birds", RUN)
    assert "is a repository of data, but a run" in refused(fetch_run, "hf-hub:someone/data")
    assert "is a repository of a model, but an HDF5 file" in refused(fetch_file, "hf-hub:someone/birds")
    assert fetch_any(parse_hub_name("hf-hub:someone/data")).path.name == "a.h5"
    assert (fetch_any(parse_hub_name("hf-hub:someone/birds")).path / "model.json").is_file()


def test_what_is_missing_is_named(hub: Hub) -> None:
    hub.add("dataset", "someone/data", {"train/wren/1.jpg": b""})
    hub.add("model", "someone/birds", {"config.json": b"{}"})
    assert "holds no HDF5 file" in refused(fetch_file, "hf-hub:someone/data")
    assert "no such file" in refused(fetch_file, "hf-hub:someone/data/x.h5")
    assert "is no run of dagaug (no model.safetensors in it)" in refused(fetch_run, "hf-hub:someone/birds")
    assert "names a file, but a run is wanted" in refused(fetch_run, "hf-hub:someone/birds/x.h5")
    for fetch in (fetch_file, fetch_run, fetch_any):
        assert "no such repository, or it is private" in refused(fetch, "hf-hub:someone/nothing")
    assert "no such branch, tag or commit" in refused(fetch_run, "hf-hub:someone/birds@v9")
    assert "no such branch, tag or commit" in refused(fetch_file, "hf-hub:someone/data@v9")


def test_a_private_repository_needs_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.add("dataset", "someone/data", DATA, private=True)
    assert file("hf-hub:someone/data").path.read_bytes() == b"first"
    connect(monkeypatch, hub, tmp_path / "empty", token=None)
    assert "it is private" in refused(fetch_file, "hf-hub:someone/data")
