"""The species of the built-in birds, determined by a seed.

The four species of a genus share a silhouette and base colours, and any two of them differ in three or more markings:
cap, throat, breast, belly, rump, wing bars, spots, eye ring, eyebrow, mask, tail tips, beak. A species depends on its
number and the seed only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dagaug.birds.anatomy import Colour, Shape, Species, shade
from dagaug.runtime.errors import UsageError

__all__ = ["MAX_SPECIES", "PER_GENUS", "make_species", "species_of", "stream"]

MAX_SPECIES = 200
"""Number of species of a seed."""

PER_GENUS = 4
"""Number of species of a genus; species 0 to 3 are the first genus."""

_SHAPES: dict[str, Shape] = {
    "finch": Shape(head=0.090, beak=0.056, bill=0.070, hook=0.15, tail=0.19, fork=0.14),
    "warbler": Shape(length=0.182, depth=0.108, head=0.080, beak=0.058, bill=0.028, hook=0.1, tail=0.21),
    "jay": Shape(length=0.196, depth=0.116, head=0.088, beak=0.074, bill=0.046, tail=0.265, fork=-0.2, crest=0.7),
    "wren": Shape(length=0.176, depth=0.132, head=0.088, beak=0.070, bill=0.026, hook=0.4, wing=0.27, tail=0.14),
    "thrush": Shape(length=0.204, depth=0.126, head=0.084, posture=26.0, beak=0.072, bill=0.034, tail=0.21),
    "swallow": Shape(length=0.186, depth=0.098, head=0.080, beak=0.034, bill=0.030, wing=0.34, tail=0.21, fork=0.35),
    "kingfisher": Shape(length=0.178, depth=0.120, head=0.104, posture=28.0, beak=0.125, bill=0.050, tail=0.13),
    "shrike": Shape(length=0.194, depth=0.114, head=0.096, beak=0.064, bill=0.050, hook=0.7, tail=0.26, fork=-0.15),
    "waxwing": Shape(length=0.198, depth=0.122, head=0.086, posture=26.0, beak=0.046, bill=0.038, tail=0.17, crest=1.0),
    "wagtail": Shape(length=0.182, depth=0.104, head=0.080, posture=8.0, beak=0.058, bill=0.026, tail=0.27, spread=5.0),
}

_GENERA: dict[str, tuple[str, ...]] = {
    "finch": ("Finch", "Bunting", "Grosbeak", "Sparrow", "Linnet"),
    "warbler": ("Warbler", "Vireo", "Kinglet", "Chat", "Redstart"),
    "jay": ("Jay", "Cardinal", "Titmouse", "Magpie", "Nutcracker"),
    "wren": ("Wren", "Babbler", "Nuthatch", "Dipper", "Creeper"),
    "thrush": ("Thrush", "Robin", "Ouzel", "Catbird", "Mockingbird"),
    "swallow": ("Swallow", "Martin", "Swift", "Swiftlet", "Tern"),
    "kingfisher": ("Kingfisher", "Bee_eater", "Jacamar", "Puffbird", "Kookaburra"),
    "shrike": ("Shrike", "Flycatcher", "Kingbird", "Pewee", "Phoebe"),
    "waxwing": ("Waxwing", "Bulbul", "Oriole", "Tanager", "Starling"),
    "wagtail": ("Wagtail", "Pipit", "Lark", "Accentor", "Longclaw"),
}

_COLOURS: dict[str, Colour] = {
    "Red": (186, 42, 36),
    "Rufous": (172, 92, 48),
    "Orange": (226, 128, 40),
    "Yellow": (234, 200, 62),
    "Olive": (124, 126, 66),
    "Green": (74, 124, 70),
    "Blue": (58, 100, 172),
    "Azure": (104, 164, 210),
    "Grey": (140, 142, 146),
    "Slate": (84, 94, 108),
    "Black": (40, 38, 42),
    "White": (240, 238, 230),
    "Buff": (216, 190, 144),
    "Brown": (118, 86, 62),
    "Chestnut": (132, 66, 42),
    "Violet": (112, 80, 146),
}

_BACKS = ("Olive", "Brown", "Grey", "Slate", "Blue", "Green", "Chestnut", "Rufous")

_UNDERS = ("White", "Buff", "Yellow", "Grey", "White", "Buff")


@dataclass(frozen=True)
class _Marking:
    """A kind of marking.

    Attributes:
        epithet: template of a species name.
        words: template of a phrase for captions.
        colours: names of its possible colours.
        strong: whether it is large; two of the three markings that differ within a genus are.
    """

    epithet: str
    words: str
    colours: tuple[str, ...]
    strong: bool = False


_MARKINGS = {
    "cap": _Marking("{}_capped", "a {} cap", ("Red", "Black", "Chestnut", "Yellow", "White", "Blue"), True),
    "throat": _Marking("{}_throated", "a {} throat", ("White", "Red", "Black", "Yellow", "Chestnut"), True),
    "breast": _Marking("{}_breasted", "a {} breast", ("Orange", "Red", "Yellow", "Slate", "Rufous"), True),
    "belly": _Marking("{}_bellied", "a {} belly", ("Yellow", "Rufous", "White", "Grey", "Orange"), True),
    "rump": _Marking("{}_rumped", "a {} rump", ("White", "Yellow", "Red", "Rufous")),
    "bars": _Marking("{}_winged", "two {} wing bars", ("White", "Yellow", "White", "Rufous"), True),
    "spots": _Marking("{}_spotted", "{} spots on its breast", ("Black", "Brown", "White"), True),
    "eye_ring": _Marking("{}_eyed", "a {} eye ring", ("White", "Yellow", "Red")),
    "brow": _Marking("{}_browed", "a {} eyebrow", ("White", "Yellow", "Buff")),
    "mask": _Marking("{}_masked", "a {} mask through the eye", ("Black", "Slate", "White"), True),
    "tail_tip": _Marking("{}_tailed", "{} tail tips", ("White", "Yellow", "Rufous")),
    "beak": _Marking("{}_billed", "a {} beak", ("Orange", "Yellow", "Red")),
}


_Marks = dict[str, str | None]  # name of the colour of each marking, or None if the species lacks it

_STRONG = tuple(name for name, marking in _MARKINGS.items() if marking.strong)

_WEAK = tuple(name for name, marking in _MARKINGS.items() if not marking.strong)


def stream(*key: int | str) -> np.random.Generator:
    """The random generator for one purpose, named by numbers and words."""
    return np.random.default_rng([part if isinstance(part, int) else int.from_bytes(part.encode()) for part in key])


def _markings_of_genus(genus: int, seed: int, under: str) -> list[_Marks]:
    """The markings of each species of a genus: two that all share, of which each species changes three at random."""
    rng = stream(seed, "genus", genus)
    shared: _Marks = dict.fromkeys(_MARKINGS)
    for name in rng.permutation(list(_MARKINGS))[:2].tolist():
        shared[name] = _pick(rng, name, {under})
    found: list[_Marks] = []
    while len(found) < PER_GENUS:
        candidate = dict(shared)
        changed = [*rng.permutation(_STRONG)[:2].tolist(), str(rng.choice(_WEAK))]
        for name in changed:
            candidate[name] = _pick(rng, name, {shared[name], under})
        if all(sum(candidate[name] != other[name] for name in _MARKINGS) >= 3 for other in found):
            found.append(candidate)
    return found


def _pick(rng: np.random.Generator, marking: str, without: set[str | None]) -> str:
    choices = [colour for colour in _MARKINGS[marking].colours if colour not in without]
    return choices[rng.integers(len(choices))]


def _names(markings: Sequence[_Marks], genus: str) -> list[str]:
    """A name for each species, after a marking that no other species of the genus has, if there is one."""
    names: list[str] = []
    for mark in markings:
        shown = [name for name, colour in mark.items() if colour is not None]
        labels = {name: _MARKINGS[name].epithet.format(mark[name]) for name in shown}
        own = [labels[name] for name in shown if sum(other[name] == mark[name] for other in markings) == 1]
        pairs = [f"{first}_{second}" for first in labels.values() for second in labels.values() if first != second]
        options = [f"{label}_{genus}" for label in (*own, *labels.values(), *pairs)]
        names.append(next(option for option in options if option not in names))
    return names


@dataclass(frozen=True)
class _BaseColours:
    """The colours that the species of a genus share; ``above`` and ``below`` are the names of two of them."""

    above: str
    below: str
    back: Colour
    under: Colour
    head: Colour
    wing: Colour


def _base_colours(genus: int, seed: int) -> _BaseColours:
    rng = stream(seed, "colours", genus)
    # neighbouring genera have different backs: genera are easy to distinguish, species of one genus are not
    above = str(stream(seed, "mantles").permutation(_BACKS)[genus % len(_BACKS)])
    below = str(rng.choice(_UNDERS))
    back = shade(_COLOURS[above], rng.uniform(0.9, 1.15))
    head = back if rng.random() < 0.6 else shade(back, rng.uniform(0.72, 0.9))
    wing = shade(back, rng.uniform(0.72, 0.95))
    return _BaseColours(above.lower(), below.lower(), back, shade(_COLOURS[below], 0.97), head, wing)


def _species(index: int, seed: int, names: tuple[str, str], shape: Shape, base: _BaseColours, mark: _Marks) -> Species:
    """A species from its markings and the colours of its genus; ``names`` are its own and that of the genus."""
    colours = {name: None if colour is None else _COLOURS[colour] for name, colour in mark.items()}
    return Species(
        index=index,
        seed=seed,
        name=names[0],
        genus=names[1],
        shape=shape,
        back=base.back,
        wing=base.wing,
        flight=shade(base.wing, 0.66),
        head=base.head,
        cap=colours["cap"] or base.head,
        throat=colours["throat"] or base.under,
        breast=colours["breast"] or base.under,
        belly=colours["belly"] or base.under,
        rump=colours["rump"] or base.back,
        tail=shade(base.wing, 0.78),
        beak=colours["beak"] or (70, 62, 58),
        legs=(126, 92, 74),
        bars=colours["bars"],
        spots=colours["spots"],
        eye_ring=colours["eye_ring"],
        brow=colours["brow"],
        mask=colours["mask"],
        tail_tip=colours["tail_tip"],
        above=base.above,
        below=base.below,
        traits=tuple(_MARKINGS[name].words.format(colour.lower()) for name, colour in mark.items() if colour),
    )


@lru_cache(maxsize=256)
def _genus(number: int, seed: int) -> tuple[Species, ...]:
    silhouettes = list(_SHAPES)
    silhouette = silhouettes[stream(seed, "silhouettes").permutation(len(_SHAPES))[number % len(_SHAPES)]]
    genus = _GENERA[silhouette][number // len(_SHAPES)]
    base = _base_colours(number, seed)
    marks = _markings_of_genus(number, seed, base.below.title())
    return tuple(
        _species(number * PER_GENUS + place, seed, (name, genus), _SHAPES[silhouette], base, mark)
        for place, (name, mark) in enumerate(zip(_names(marks, genus), marks, strict=True))
    )


def species_of(index: int, seed: int = 0) -> Species:
    """One species of a seed.

    Args:
        index: number of the species, from 0.
        seed: random seed.

    Raises:
        UsageError: ``index`` is not below :data:`MAX_SPECIES`.
    """
    if not 0 <= index < MAX_SPECIES:
        raise UsageError(f"the built-in birds have species 0 to {MAX_SPECIES - 1}", option="index", value=index)
    return _genus(index // PER_GENUS, seed)[index % PER_GENUS]


def make_species(count: int = 20, seed: int = 0) -> tuple[Species, ...]:
    """The first ``count`` species of a seed."""
    return tuple(species_of(index, seed) for index in range(count))
