"""Names for readers."""

from __future__ import annotations

from dagaug.report.wording import display_names


def test_class_names_are_shortened_only_where_they_stay_different() -> None:
    names = ["001.Black_footed_Albatross", "002.Gull", "003.Gull", "004."]
    assert display_names(names) == ["Black footed Albatross", "002.Gull", "003.Gull", "004."]
