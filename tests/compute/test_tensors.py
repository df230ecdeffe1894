from __future__ import annotations

import numpy as np
import torch

from dagaug.compute.tensors import quantize, scale_pixels, to_bytes, to_pixels, to_tensor

CPU = torch.device("cpu")
PIXELS = np.arange(256, dtype=np.uint8).repeat(3).reshape(4, 8, 8, 3)


def test_all_values_of_pixels_survive_the_way_to_floats_and_back() -> None:
    tensor = to_tensor(PIXELS, CPU)
    assert tensor.shape == (4, 3, 8, 8)
    assert (tensor.dtype, float(tensor.min()), float(tensor.max())) == (torch.float32, -1, 1)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(to_pixels(tensor), PIXELS)
    np.testing.assert_array_equal(to_bytes(tensor).numpy(), PIXELS)
    np.testing.assert_array_equal(quantize(scale_pixels(torch.from_numpy(PIXELS))).numpy(), PIXELS)


def test_views_and_read_only_arrays_are_converted_and_left_alone() -> None:
    mirrored = PIXELS[:, :, ::-1]
    np.testing.assert_array_equal(to_pixels(to_tensor(mirrored, CPU)), mirrored)
    frozen = PIXELS.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(to_pixels(to_tensor(frozen, CPU)), frozen)


def test_floats_are_rounded_and_clamped() -> None:
    values = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0, -1 + 1.49 / 127.5, -1 + 1.51 / 127.5])
    assert quantize(values).tolist() == [0, 0, 128, 255, 255, 1, 2]


def test_leading_dimensions_are_kept() -> None:
    images = torch.zeros(2, 5, 3, 4, 6)
    assert to_pixels(images).shape == (2, 5, 4, 6, 3)
