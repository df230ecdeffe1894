"""Torch devices, precision, conversions between pixels and tensors, worker processes."""
