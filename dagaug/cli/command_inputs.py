"""Inputs of commands: options records from values, files and runs here or on the hub, a file's data folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagaug.hub.names import HubName, is_hub_name, parse_hub_name
from dagaug.runtime.errors import CheckpointError, DataError, UsageError

if TYPE_CHECKING:
    from dagaug.data.dataset_records import Dataset
    from dagaug.hdf5.schema import Header

__all__ = [
    "Input",
    "build_options",
    "check_early",
    "data_folder",
    "find_input",
    "newest_store",
    "output_folder",
    "read_stored_dataset",
    "with_masks",
]


_DEVICE = re.compile(r"(auto|gpu|cpu|cuda|mps|xpu|hpu|mtia|xla|ipu|ve|vulkan|opencl|privateuseone|npu|mlu)(:\d+)?")

_FOLDERS = {"masks": "folder of masks", "oracle_data": "data folder", "start": "run folder or checkpoint"}
"""Options that name folders, and what they name."""


def check_early(
    *, data: Path | None = None, device: str = "auto", devices: str | None = None, **files: Path | None
) -> None:
    """Check paths and devices before a command's slow imports, so that a slip of the pen is told at once.

    Args:
        data: the data folder or CSV file; None if it was not given.
        device: the name of a torch device, or ``auto``.
        devices: names of several devices, separated by commas.
        files: files and folders that must exist, by the names of their options; None if not given. Names on the hub
            are checked for their form.

    Raises:
        DataError, CheckpointError: a path does not exist.
        UsageError: an option's folder does not exist, a name on the hub is malformed, torch has no device of a name, or
            this machine has it not.
    """
    if data is not None and not data.exists():
        raise DataError(f"{data}: no such data folder; to make one: dagaug sample-data {data}")
    for option, path in files.items():
        if path is not None and is_hub_name(path):
            parse_hub_name(path)
        elif path is not None and not path.exists():
            if option in _FOLDERS:
                raise UsageError(f"no such {_FOLDERS[option]}", option=option, value=path)
            kind = "checkpoint" if option == "checkpoint" else "file"
            raise CheckpointError(f"no such {kind}", option=option, value=path)
    for option, names in (("device", device), ("devices", devices or "")):
        for name in names.split(",") if names else ():
            if not _DEVICE.fullmatch(name.strip()):
                choices = "choose auto, cpu, cuda, cuda:N, mps, or another torch device"
                raise UsageError(choices, option=option, value=name)
            if name.strip() not in ("auto", "cpu"):  # torch alone loads sooner than all that a command needs
                from dagaug.compute.devices import pick_device

                pick_device(name.strip(), option=option)


def build_options(build: Any, **values: Any) -> Any:
    """Make an options record.

    Raises:
        UsageError: pydantic refuses a value; only the first one is named.
    """
    from pydantic import ValidationError

    try:
        return build(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise UsageError(message, option=str(first["loc"][0]), value=first.get("input")) from error


@dataclass(frozen=True)
class Input:
    """An HDF5 file or a run that a command reads.

    Attributes:
        path: the file or folder on this machine; in the hub's cache if it came from there.
        hub: its name on the hub with the commit; None for one of this machine.
    """

    path: Path
    hub: HubName | None = None

    @property
    def name(self) -> str:
        """The name by which the user can give it again."""
        return str(self.hub or self.path)

    def beside(self) -> Path:
        """The path beside which results stand by default; for the hub one in a folder of ``runs/``, which is created.

        Raises:
            DataError: the folder cannot be created.
        """
        return self.path if self.hub is None else output_folder(self.hub) / Path(self.hub.file).name


def find_input(given: Path, *, runs: bool = False, quiet: bool = False) -> Input:
    """The HDF5 file, or if ``runs`` the file or run, of a path or of a name on the hub.

    What is on the hub is downloaded, with a progress bar unless ``quiet``.

    Raises:
        UsageError, HubError: it is no name on the hub, or cannot be downloaded.
    """
    if not is_hub_name(given):
        return Input(given)
    from dagaug.hub.download import fetch_any, fetch_file

    name = parse_hub_name(given)
    fetched = (fetch_any if runs else fetch_file)(name, progress=not quiet)
    return Input(fetched.path, fetched.name)


def output_folder(name: HubName) -> Path:
    """The folder under ``runs/`` for results made with what has this name on the hub; it is created.

    Raises:
        DataError: it cannot be created.
    """
    from dagaug.runtime.output_marks import mark_output

    folder = name.outputs
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark_output(folder, "run")
    except OSError as error:
        raise DataError(f"{folder}: cannot be created ({error.strerror})", remedies={"out": None}) from error
    return folder


def newest_store() -> Path:
    """The newest HDF5 file in the current folder and in ``runs/*/``.

    Raises:
        DataError: there is none.
    """
    files = sorted([*Path("runs").glob("*/*.h5"), *Path().glob("*.h5")], key=lambda path: path.stat().st_mtime)
    if not files:
        raise DataError("no augmented .h5 file found here or under runs/; make one first: dagaug augment DATA")
    return files[-1]


def data_folder(header: Header, file: Path, command: str) -> Path:
    """The data folder that an HDF5 file was made from.

    Args:
        header: the file's header.
        file: the HDF5 file.
        command: the command line that names the data folder, for the error message.

    Raises:
        DataError: the file names no data folder, or the folder is missing.
    """
    found = header.provenance.data_folder(file)
    if found is None:
        named = header.provenance.data or "(not recorded)"
        raise DataError(f"{file}: its data folder {named} was not found; give it: {command}")
    return found


def read_stored_dataset(data: Path, header: Header) -> Dataset:
    """Read a data folder in the layout, and with the split, that an HDF5 file was made with.

    Raises:
        DataError: the folder cannot be read.
    """
    from dagaug.data.layouts import read_dataset

    return read_dataset(data, layout=header.provenance.layout, seed=header.provenance.split_seed)


def with_masks(dataset: Dataset, folder: Path | None, say: Callable[[str], None]) -> Dataset:
    """The data set with the masks in a folder, or with its own ones; says in one line where they are, if there are any.

    Raises:
        UsageError, DataError: see :func:`dagaug.data.mask_files.find_masks`.
    """
    from dagaug.data.mask_files import find_masks

    if folder is not None:
        dataset = find_masks(dataset, folder)
    if dataset.masks is not None:
        count, total = sum(sample.mask is not None for sample in dataset.samples), len(dataset.samples)
        say(f"Masks of {count} of {total} images: {dataset.masks}" + ("; the others are estimated" * (count < total)))
    return dataset
