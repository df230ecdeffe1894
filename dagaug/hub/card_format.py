"""Cards of repositories: a README.md with YAML front matter, which the hub reads, and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from huggingface_hub import CardData, RepoCard

from dagaug.runtime.unedited_texts import is_unedited

__all__ = [
    "CARD_FILE",
    "UNKNOWN_LICENCE",
    "code",
    "front_matter",
    "licence_of",
    "names_in_short",
    "table",
]

CARD_FILE = "README.md"
"""Name of a card, in a repository and in a run folder."""

UNKNOWN_LICENCE = "unknown"
"""The hub's identifier for a licence that was not stated."""

_SHOWN_NAMES = 200


def front_matter(licence: str, tags: Sequence[str], others: Mapping[str, str | list[str]]) -> str:
    """The YAML block at the head of a card; ``others`` are further keys of the hub's metadata."""
    data = CardData()
    for name, value in {"license": licence, **others, "tags": list(tags)}.items():
        data[name] = value
    return f"---\n{data.to_yaml()}\n---\n"


def licence_of(text: str) -> str | None:
    """The licence in the front matter of a card that dagaug wrote; None for another card."""
    if not is_unedited(text):
        return None
    found = RepoCard(text).data.get("license")
    return found if isinstance(found, str) else None


def table(rows: Mapping[str, str], head: tuple[str, str]) -> str:
    """A Markdown table of two columns of Markdown."""
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


def code(value: object) -> str:
    """A value of foreign data as inline code, which no Markdown or HTML in it can leave, also in a table."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(value)).replace("`", "'").replace("|", "¦")
    return f"`{text.strip() or ' '}`"


def names_in_short(names: Iterable[str]) -> str:
    """Names as code, separated by commas; at most 200 of them."""
    everything = list(names)
    rest = len(everything) - _SHOWN_NAMES
    return ", ".join(map(code, everything[:_SHOWN_NAMES])) + (f" and {rest:,} more" if rest > 0 else "")
