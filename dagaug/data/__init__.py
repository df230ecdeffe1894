"""Data sets on disk: layouts, image files, square crops, patches, foreground masks, tables of pairs. No torch."""
