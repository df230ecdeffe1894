from __future__ import annotations

from pathlib import Path

from making_published import write_dogs

from dagaug.data.layouts import read_dataset


def test_classes_are_breeds_and_smaller_dogs_are_counted(tmp_path: Path) -> None:
    data = read_dataset(write_dogs(tmp_path))
    assert data.classes == ("Chihuahua", "Samoyed")
    assert data.left_out == {"smaller objects in the same images": 8}


def test_the_folder_of_the_images_can_still_be_read_as_class_folders(tmp_path: Path) -> None:
    assert read_dataset(write_dogs(tmp_path) / "Images").layout == "imagefolder"
