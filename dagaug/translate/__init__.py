"""Translation of whole folders and HDF5 files from one domain to another."""
