"""The built-in sample data: procedural birds of any species in any pose. No torch."""
