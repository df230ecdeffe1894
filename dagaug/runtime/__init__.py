"""Errors, progress, signals, files written atomically, and safe file names."""
