"""Images in Parquet files, as the Hugging Face Hub has them, extracted once into files beside them.

The column of the images is a struct of ``bytes`` and ``path``. Names of classes are those that the library ``datasets``
wrote into the file (``ClassLabel``), else the values themselves. Files lie in the folder, in ``data/`` or in folders of
splits; the split is the beginning of the file's name (``train-00000-of-00002.parquet``), or its folder.

The images go to ``extracted-images/SPLIT/0000012.jpg`` in the data folder, with one ``metadata.jsonl`` in each split.
A stamp there holds names, sizes and hashes of the ends of the Parquet files, so that changed files are extracted again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagaug.data.dataset_records import is_image_name
from dagaug.data.folder_layout import TEST_NAMES, TRAIN_NAMES
from dagaug.runtime.errors import DataError

if TYPE_CHECKING:
    import pyarrow

__all__ = ["EXTRACTED", "extract_images", "has_split_files", "parquet_files"]

EXTRACTED = "extracted-images"
"""Name of the folder with the extracted images, in the data folder."""

_STAMP = ".parquet-files.json"
_FOOTER = 1 << 16  # bytes; the metadata at the end of a Parquet file change with its content
_BATCH = 64  # images in memory at a time
_LABELS = ("label", "labels", "class", "category")
_CAPTIONS = ("text", "caption")
_ENDINGS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp"}


def parquet_files(root: Path) -> list[Path]:
    """The Parquet files of a folder and its folders, sorted."""
    found = [*root.glob("*.parquet"), *root.glob("*/*.parquet")]
    return sorted(path for path in found if not path.name.startswith(".") and path.name != "metadata.parquet")


def has_split_files(root: Path) -> bool:
    """Whether some Parquet file of a folder has the name of a split, or lies in the folder of one."""
    return any(_split_of(path) for path in parquet_files(root))


def extract_images(root: Path) -> Path:
    """Write the images of a folder's Parquet files into ``extracted-images``, unless they are there already.

    Returns:
        That folder.

    Raises:
        DataError: pyarrow is not installed, a file is malformed, or the folder cannot be written.
    """
    files = parquet_files(root)
    folder = root / EXTRACTED
    stamp = json.dumps([_fingerprint(root, path) for path in files])
    if folder.exists():
        if not (folder / _STAMP).is_file():
            raise DataError(f"{folder}: is needed for the images of {files[0].name}; rename this folder")
        if (folder / _STAMP).read_text(encoding="utf-8") == stamp:
            return folder
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise DataError(f"{files[0]}: Parquet files need pyarrow: pip install 'dagaug[parquet]'") from error
    try:
        with tempfile.TemporaryDirectory(prefix=".extracting-", dir=root) as scratch:
            made = Path(scratch, EXTRACTED)
            made.mkdir()
            _extract(files, made)
            (made / _STAMP).write_text(stamp, encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: the images of {files[0].name} cannot be extracted there ({error.strerror or error}); "
            "copy the data folder to where you may write"
        ) from error
    return folder


def _fingerprint(root: Path, path: Path) -> list[object]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(size - _FOOTER, 0))
        return [path.relative_to(root).as_posix(), size, hashlib.sha256(stream.read()).hexdigest()]


def _extract(files: Sequence[Path], folder: Path) -> None:
    counts: Counter[str] = Counter()
    for file in files:
        split = _split_of(file) or "all"
        (folder / split).mkdir(exist_ok=True)
        with (folder / split / "metadata.jsonl").open("a", encoding="utf-8") as table:
            for name, content, row in _read_images(file):
                number, counts[split] = counts[split], counts[split] + 1
                ending = Path(name).suffix.lower() if is_image_name(name) else _ENDINGS.get(content[:2], ".tif")
                image = f"{number:07d}{ending}"
                (folder / split / image).write_bytes(content)
                table.write(json.dumps({"file_name": image, **row}) + "\n")


def _split_of(file: Path) -> str:
    """The name of a file's split; empty if neither its name nor its folder is one."""
    names = (file.name.partition("-")[0].removesuffix(".parquet"), file.parent.name)
    return next((name.lower() for name in names if name.lower() in (*TRAIN_NAMES, *TEST_NAMES)), "")


def _read_images(file: Path) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Name, content, and label and caption of each image."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            image, label = _image_column(file, schema), _label_column(file, schema)
            caption = next((name for name in _CAPTIONS if name in schema.names), None)
            names = _class_names(schema, label)
            columns = [image, label, *([caption] if caption else [])]
            for batch in opened.iter_batches(batch_size=_BATCH, columns=columns):
                for row in batch.to_pylist():
                    held, value = row[image] or {}, row[label]
                    if not held.get("bytes"):
                        raise DataError(f"{file}: an image has a path alone, but no bytes")
                    if value is None or (names and not 0 <= value < len(names)):
                        raise DataError(f"{file}: an image has the label {value}; expected one of its classes")
                    more = {"text": str(row[caption])} if caption and row[caption] else {}
                    yield (
                        str(held.get("path") or ""),
                        held["bytes"],
                        {"label": str(names[value] if names else value)} | more,
                    )
    except pyarrow.ArrowException as error:
        raise DataError(f"{file}: not a readable Parquet file ({str(error)[:80]})") from error


def _image_column(file: Path, schema: pyarrow.Schema) -> str:
    from pyarrow import types

    for field in schema:
        if types.is_struct(field.type) and {"bytes", "path"} <= {inner.name for inner in field.type}:
            return str(field.name)
    raise DataError(f"{file}: has no column of images (a struct of bytes and path)")


def _label_column(file: Path, schema: pyarrow.Schema) -> str:
    named = [name for name in _LABELS if name in schema.names]
    classes = [name for name, feature in _features(schema).items() if feature.get("_type") == "ClassLabel"]
    if named or len(classes) == 1:
        return [*named, *classes][0]
    raise DataError(f"{file}: has no column {', '.join(_LABELS)}; its columns are {', '.join(schema.names)[:80]}")


def _class_names(schema: pyarrow.Schema, label: str) -> list[str]:
    """The names of the classes that a number in the label's column stands for; empty if the values are names."""
    return [str(name) for name in _features(schema).get(label, {}).get("names", [])]


def _features(schema: pyarrow.Schema) -> dict[str, dict[str, Any]]:
    """What ``datasets`` wrote about the columns."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
