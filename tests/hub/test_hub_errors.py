"""Errors of the hub, of the network and of the disk become one line that says what to do; others stay as they are."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from dagaug.hub.hub_errors import explained, is_unreachable
from dagaug.runtime.errors import HubError


def raised(error: Exception) -> str:
    with pytest.raises(HubError) as caught, explained("someone/birds"):
        raise error
    text = str(caught.value)
    assert text.startswith("someone/birds: ")
    assert "\n" not in text
    return text


def test_without_network_the_address_is_named(hub: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"the hub \(http://127.0.0.1:9\) cannot be reached"), explained("a/b"):
        HfApi().repo_info("a/b")
    assert "cannot be reached" in raised(TimeoutError())


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "HF_HUB_OFFLINE is set" in raised(OfflineModeIsEnabled("off"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in raised(LocalEntryNotFoundError("not cached"))


def test_a_full_disk_is_not_taken_for_the_network(tmp_path: Path) -> None:
    assert raised(OSError(28, "No space left on device", str(tmp_path))).endswith(
        f"{tmp_path}: No space left on device"
    )


def test_a_bug_stays_a_bug() -> None:
    with pytest.raises(ZeroDivisionError), explained("someone/birds"):
        raise ZeroDivisionError


@pytest.mark.parametrize(("token", "says"), [("hf_wrong", "does not accept the token"), (None, "read_only")])
def test_a_refused_token_is_told_from_a_missing_right(
    hub: object, monkeypatch: pytest.MonkeyPatch, token: str | None, says: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        hub.read_only, says = True, "may not write there"  # type: ignore[attr-defined]
    with pytest.raises(HubError, match=says), explained("a/b"):
        HfApi().create_repo("a/b")


def test_only_a_failing_hub_counts_as_not_reached(hub: object) -> None:
    hub.broken = True  # type: ignore[attr-defined]
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi().repo_info("a/b")
    assert is_unreachable(caught.value)
    assert "the hub fails at the moment (status 500); " in raised(caught.value)
    with pytest.raises(HubError, match="again later"), explained("a/b", uploading=True):
        raise caught.value
    hub.broken = False  # type: ignore[attr-defined]
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi().repo_info("a/b")
    assert not is_unreachable(caught.value)
