"""Published data sets in the layout in which they are downloaded: one module each, with the exact layout.

Each module has two functions: whether a folder looks like the data set, possibly without some of its parts, and its
reader, which names a missing part and the archive that holds it.
"""

__all__ = ()
