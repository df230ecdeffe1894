from __future__ import annotations

import numpy as np

from dagaug.birds.poses import PoseBand, pose_band_of, random_pose


def test_narrow_bands_are_narrow_and_test_poses_cover_the_range() -> None:
    everything = PoseBand()
    poses = [random_pose(np.random.default_rng(number)) for number in range(200)]
    assert {pose.facing for pose in poses} == {-1, 1}
    for name in ("tilt", "neck", "wing", "tail"):
        low, high = getattr(everything, name)
        seen = np.array([getattr(pose, name) for pose in poses])
        counts, _ = np.histogram(seen, bins=5, range=(low, high))
        assert counts.sum() == 200
        assert counts.min() > 17  # 40 expected, standard deviation 5.7
        for index in range(20):
            narrow_low, narrow_high = getattr(pose_band_of(index), name)
            assert low <= narrow_low < narrow_high <= high
            assert narrow_high - narrow_low < (high - low) / 5
    scales = np.array([pose.scale for pose in poses])
    assert 0.7 < scales.min() < 0.8 < 1.05 < scales.max() <= 1.1
