"""The HDF5 file of an augmented data set: schema, reader, shards, merge, verification."""
