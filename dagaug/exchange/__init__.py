"""Export of the HDF5 file to other tools' formats, and the import back. No torch."""
