"""Errors, progress, signals, atomic files and locks, prefetching, safe file names."""
