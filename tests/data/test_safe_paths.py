from __future__ import annotations

from pathlib import Path

import pytest

from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError


@pytest.mark.parametrize("text", ["../x.png", "a/../../x.png", "/etc/x.png", "a\0b.png"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"list, line 3: .* leaves the data folder"):
        SafePaths(tmp_path, "images").checked(text, "list, line 3")


def test_links_may_lead_within_the_data_folder_only(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "images" / "in.png").symlink_to(root / "objects.png")
    (root / "images" / "out.png").symlink_to(tmp_path / "secret.png")
    paths = SafePaths(root, "images")
    assert paths.base == root / "images"
    assert paths.checked(" in.png ", "list") == Path("in.png")
    assert paths.checked("missing/1.png", "list") == Path("missing/1.png")
    with pytest.raises(DataError, match="through a link"):
        paths.checked("out.png", "list")
