"""The built-in data set: procedural birds of any species in any pose, with ground truth. No torch."""
