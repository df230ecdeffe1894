"""Originals of a file from the data folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from making_reports import write_store
from reading_pages import Document

from dagaug.hdf5.reader import Store
from dagaug.report.morph_images import OriginalImages
from dagaug.report.write import sheet_of_store, write_report


def test_originals_come_from_the_data_folder_and_never_from_outside(tmp_path: Path) -> None:
    path = write_store(tmp_path / "bare.h5", real=False)
    data = tmp_path / "data"
    (data / "<i>0<").mkdir(parents=True)
    red = np.full((20, 30, 3), (0, 0, 255), np.uint8)  # OpenCV's order
    (data / "<i>0<" / "i>.png").write_bytes(cv2.imencode(".png", red)[1].tobytes())
    (data / "<i>1<").mkdir()
    outside = tmp_path / "secret.png"
    outside.write_bytes(cv2.imencode(".png", red)[1].tobytes())
    (data / "<i>1<" / "i>.png").symlink_to(outside)
    with Store(path) as opened:
        originals = OriginalImages(opened, data)
        found = originals.picture(0)
        assert found is not None
        assert found.shape == (20, 30, 3)
        assert tuple(found[0, 0]) == (255, 0, 0)
        assert originals.picture(1) is None
        assert originals.picture(2) is None
        assert originals.picture(-1) is None
        assert OriginalImages(opened).picture(0) is None
    write_report(path, tmp_path / "report.html")
    sheet_of_store(path, tmp_path / "sheet.png")
    items = Document(tmp_path / "report.html").data["items"]
    assert isinstance(items, list)
    assert {tuple(item["pictures"][:2]) for item in items} == {(-1, -1)}
