"""Measures of an augmented set: realism, diversity, recognisability, true answers, key points."""
