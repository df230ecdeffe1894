"""Export of the HDF5 file for other tools, and import of an export. Without torch."""
