"""Devices, precision, conversions between pixels and tensors, and the pool of worker processes."""
