"""The XML files of PASCAL VOC, which list the objects of an image; Stanford Dogs has the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from dagaug.data.dataset_records import Box
from dagaug.data.list_files import box_of_corners, finite_numbers
from dagaug.runtime.errors import DataError

__all__ = ["SMALLER_OBJECTS", "AnnotatedObject", "largest_of", "read_objects"]

SMALLER_OBJECTS = "smaller objects in the same images"
"""Reason why an object is no sample: an image is one sample, with its largest object."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of an image.

    Attributes:
        name: name of its class.
        box: its bounding box.
        difficult: whether it can hardly be recognised, as the annotators say.
    """

    name: str
    box: Box
    difficult: bool = False


def largest_of(objects: Sequence[AnnotatedObject]) -> AnnotatedObject:
    """The object with the largest box; the first of equal ones."""
    return max(objects, key=lambda one: one.box[2] * one.box[3])


def read_objects(path: Path) -> list[AnnotatedObject]:
    """The objects of an annotation file: ``<object><name>cat</name><bndbox><xmin>1</xmin>…``, pixels counted from 1.

    Raises:
        DataError: the file is missing, is no XML, or an object lacks its name or box.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; each image of the list needs its annotation") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: not an XML file ({error})") from error
    found = []
    for one in root.iter("object"):
        name = (one.findtext("name") or "").strip()
        corners = finite_numbers([one.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")], 4)
        if not name or corners is None:
            raise DataError(f"{path}: an object has no name, or no bndbox with xmin, ymin, xmax and ymax")
        box = box_of_corners(corners[0], corners[1], corners[2], corners[3], str(path))
        found.append(AnnotatedObject(name, box, (one.findtext("difficult") or "").strip() == "1"))
    return found
