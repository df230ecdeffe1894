"""The HDF5 file: specification, reader, shards, merge, verification, torch data set."""
