"""Data sets on disk: layouts, image files, regions, patches, foreground masks, tables of pairs. No torch."""
