"""Small data folders for tests: empty files in class folders, and the lists of CUB-200-2011."""

from __future__ import annotations

from pathlib import Path

from dagaug.data.dataset_records import Dataset


def touch(root: Path, *names: str) -> None:
    """Write files that are no images, with their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not read here")


def write_cub(root: Path) -> Path:
    """Write lists of six images of two classes; image numbers start at 3, class numbers at 5."""
    root.mkdir(exist_ok=True)
    files = [f"00{1 + number // 3}.Häher_{number // 3}/{number}.jpg" for number in range(6)]
    (root / "images.txt").write_text("".join(f"{3 + n} {name}\n" for n, name in enumerate(files)))
    (root / "image_class_labels.txt").write_text("".join(f"{3 + n} {5 + n // 3}\n" for n in range(6)))
    (root / "classes.txt").write_text("5 001.Häher_0\n6 002.Häher_1\n")
    (root / "train_test_split.txt").write_text("3 1\n4 1\n5 0\n6 1\n7 1\n8 0\n")
    (root / "bounding_boxes.txt").write_text("".join(f"{3 + n} {n}.5 2.0 30.0 40.0\n" for n in range(6)))
    (root / "parts").mkdir(exist_ok=True)
    (root / "parts" / "part_locs.txt").write_text("3 1 4.5 6.0 1\n3 2 0.0 0.0 0\n3 3 7.0 8.0 1\n")
    touch(root, *("images/" + name for name in files))
    (root / "text" / "001.Häher_0").mkdir(parents=True, exist_ok=True)
    (root / "text" / "001.Häher_0" / "0.txt").write_text("A blue bird.\n\nIt sits.\n")
    return root


def splits_of(data: Dataset) -> dict[str, str]:
    """The split of each path."""
    return {sample.path.as_posix(): sample.split for sample in data.samples}
