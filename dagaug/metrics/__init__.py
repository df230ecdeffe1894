"""Measures of an augmented data set: realism, diversity, recognisability, true answers, key points."""
