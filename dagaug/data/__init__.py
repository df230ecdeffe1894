"""Data sets on disk: layouts, image files, crops, patches and foreground masks. No torch."""
