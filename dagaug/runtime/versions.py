"""Versions of the libraries that a result depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["UNKNOWN", "library_versions"]

UNKNOWN = "unknown"
"""Version of a library whose installation left no record, or of a file that names no versions."""


def library_versions(*libraries: str) -> dict[str, str]:
    """Installed versions of dagaug and of ``libraries``.

    Args:
        libraries: names as ``pip install`` takes them, for example ``torch`` or ``opencv-python``.

    Returns:
        library name to version, dagaug first; :data:`UNKNOWN` where pip knows no version.
    """
    return {name: _version_of(name) for name in ("dagaug", *libraries)}


def _version_of(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return UNKNOWN
