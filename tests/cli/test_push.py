"""`dagaug push` as a user types it: plans, results, and errors in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, connect, running_hub
from making_runs import dagaug
from making_stores import write

from dagaug.exchange.export import export


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(Path("cub.h5"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as server:
        connect(monkeypatch, server, tmp_path / "cache")
        yield server


def test_a_dry_run_lists_files_and_sizes_and_asks_nobody(
    store: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    output = dagaug("push", store, "someone/data", "--dry-run", "--private", "--revision", "v1")
    assert output.code == 0, output.err
    first, file, card, total = output.out.splitlines()
    assert first == "Would upload to the dataset repository someone/data, branch v1, private if it is new"
    assert file == f"  cub.h5: {store.stat().st_size / 1e3:,.1f} kB"
    assert card.startswith("  README.md: ")
    assert total.startswith("2 files, ")
    as_json = dagaug("push", store, "someone/data", "--dry-run", "--json").json
    assert as_json["files"]["cub.h5"] == store.stat().st_size
    assert as_json["size"] == sum(as_json["files"].values())
    assert hub.requests == []


def test_of_very_many_files_a_dry_run_lists_the_first(store: Path) -> None:
    export(store, Path("folders"))
    for number in range(30):
        Path("folders", f"{number}.txt").touch()
    lines = dagaug("push", "folders", "someone/data", "--dry-run").out.splitlines()
    assert len(lines) == 24
    assert re.fullmatch(r"  and \d+ more", lines[21])


def test_a_file_is_uploaded_and_the_result_names_it(store: Path, hub: Hub) -> None:
    output = dagaug("push", store, "hf-hub:someone/data", "--private", "--licence", "cc-by-4.0")
    assert output.code == 0, output.err
    repository = hub.repositories["dataset", "someone/data"]
    commit = repository.branches["main"]
    assert repository.private
    assert f"at {hub.url}/datasets/someone/data (branch main, commit {commit[:8]})" in output.out
    assert "Next: dagaug score DATA hf-hub:someone/data" in output.out
    assert b"license: cc-by-4.0" in repository.files()["README.md"]
    repository.commit("main", {"README.md": b"mine"})
    output = dagaug("push", store, "someone/data")
    assert "The card there was written or changed by hand and is kept; --replace-card replaces it" in output.out
    as_json = dagaug("push", store, "someone/data", "--replace-card", "--revision", "v1", "--json").json
    assert (as_json["repository_type"], as_json["revision"], as_json["card_kept"]) == ("dataset", "v1", False)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("cub.h5", "data"), 2, "data: not a repository; write USER/NAME"),
        (("cub.h5", "a/b@v1"), 2, "a/b@v1: not a repository; write USER/NAME"),
        (("nothing.h5", "a/b"), 2, "nothing.h5: no such file or folder; give an HDF5 file"),
        ((".", "a/b"), 2, ".: holds neither a finished run nor an export"),
        (("cub.h5", "someone/taken"), 1, "someone/taken: is a repository of a model already; give another name"),
        (("cub.h5", "someone/public", "--private"), 2, "--private: someone/public exists and is public"),
        (("cub.h5", "a/b", "--licence", "mine"), 1, 'a/b: Invalid metadata in README.md. - "license" must be one of'),
    ],
)
def test_mistakes_are_one_line(store: Path, hub: Hub, arguments: tuple[str, ...], code: int, says: str) -> None:
    del store
    hub.add("model", "someone/taken", {})
    hub.add("dataset", "someone/public", {})
    output = dagaug("push", *arguments, "--quiet")
    assert (output.code, output.out, output.err.count("\n")) == (code, "", 1)
    assert output.err.startswith(f"dagaug: {says}")


def test_the_environment_gives_address_and_token_as_for_other_tools(store: Path, tmp_path: Path) -> None:
    """In a process of its own: the library reads the environment when it is imported."""
    with running_hub() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-m", "dagaug", "push", str(store), "someone/data"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
        assert hub.repositories["dataset", "someone/data"].files()["cub.h5"] == store.read_bytes()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"dagaug: someone/data: the hub ({hub.url}) cannot be reached")
