"""Reader of two unpaired folders of images, for translation from source to target."""

from __future__ import annotations

from pathlib import Path

from dagaug.data.dataset_records import IMAGE_SUFFIXES, Domains
from dagaug.data.folder_layout import images_in
from dagaug.runtime.errors import DataError

__all__ = ["read_domains"]


def read_domains(source: Path | str, target: Path | str | None = None) -> Domains:
    """List the images of two unpaired folders.

    Args:
        source: the folder of the source domain. Without ``target``, a folder that holds ``trainA`` and ``trainB``
            (and optionally ``testA`` and ``testB``), or ``A`` and ``B``.
        target: the folder of the target domain.

    Raises:
        DataError: a folder is missing, cannot be read, or holds no images.
    """
    source = Path(source)
    try:
        if target is not None:
            return Domains(_read_domain(source), _read_domain(Path(target)))
        if not source.is_dir():
            raise DataError(f"{source}: no such data folder; give one that holds trainA and trainB")
        if (source / "trainA").is_dir() and (source / "trainB").is_dir():
            tests = [images_in(source / name) for name in ("testA", "testB")]
            return Domains(_read_domain(source / "trainA"), _read_domain(source / "trainB"), *tests)
        if (source / "A").is_dir() and (source / "B").is_dir():
            return Domains(_read_domain(source / "A"), _read_domain(source / "B"))
    except OSError as error:
        where = error.filename or source
        raise DataError(f"{where}: cannot be read ({error.strerror}); check its permissions") from error
    raise DataError(f"{source}: not two domains; it must hold the folders trainA and trainB, or A and B")


def _read_domain(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder with the images of one domain")
    paths = images_in(folder)
    if not paths:
        raise DataError(f"{folder}: no images found ({', '.join(IMAGE_SUFFIXES)})")
    return paths
