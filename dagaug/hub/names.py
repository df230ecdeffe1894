"""Names of runs and HDF5 files on the hub: ``hf-hub:USER/NAME``, with a file and a revision if needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dagaug.runtime.errors import UsageError

__all__ = ["HUB", "HubName", "as_repository", "is_hub_name", "parse_hub_name"]

HUB = "hf-hub:"
"""Begin of every name, as timm writes it."""

_FORM = f"write {HUB}USER/NAME, {HUB}USER/NAME@REVISION or {HUB}USER/NAME/FILE.h5@REVISION"


@dataclass(frozen=True)
class HubName:
    """A run or an HDF5 file on the hub.

    Attributes:
        repository: ``USER/NAME``.
        file: path of an HDF5 file in it; empty for the only one, or for a run.
        revision: branch, tag or commit; empty for the branch ``main``.
    """

    repository: str
    file: str = ""
    revision: str = ""

    def __str__(self) -> str:
        place = f"/{self.file}" if self.file else ""
        return f"{HUB}{self.repository}{place}{'@' if self.revision else ''}{self.revision}"

    @property
    def outputs(self) -> Path:
        """Folder in the current one for what commands write beside a local file: ``runs/USER--NAME-COMMIT``."""
        return Path("runs") / f"{self.repository.replace('/', '--')}-{self.revision[:8]}"


def is_hub_name(value: Path | str) -> bool:
    """Whether this is meant as a name on the hub, well formed or not."""
    return str(value).startswith(HUB)


def parse_hub_name(value: Path | str) -> HubName:
    """Read ``hf-hub:USER/NAME[/FILE][@REVISION]``.

    Raises:
        UsageError: it has another form.
    """
    place, at, revision = str(value).removeprefix(HUB).partition("@")
    user, _, rest = place.partition("/")
    name, slash, file = rest.partition("/")
    well_formed = bool(file) == bool(slash) and bool(revision) == bool(at)
    well_formed &= not PurePosixPath(file).is_absolute() and ".." not in PurePosixPath(file).parts
    if not is_hub_name(value) or not well_formed:
        raise UsageError(f"{value}: not a name on the hub; {_FORM}")
    return HubName(as_repository(f"{user}/{name}", f"{value}: not a name on the hub; {_FORM}"), file, revision)


def as_repository(text: str, message: str) -> str:
    """Check the name ``USER/NAME`` of a repository, by the rules of the hub.

    Raises:
        UsageError: with this message, if it is no such name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise UsageError(message) from error
    if text.count("/") != 1:
        raise UsageError(message)
    return text
