"""The composed sessions are what the PPR10K chapter says of them."""

from __future__ import annotations

import numpy as np
import pytest

from cvpr21lib.ppr10k import metrics
from cvpr21lib.scenes import portraits


@pytest.fixture(scope="module")
def sessions() -> list[list[portraits.Portrait]]:
    return [portraits.session(group) for group in range(12)]


def test_a_session_is_a_function_of_its_number(sessions):
    for one, again in zip(sessions[3], portraits.session(3), strict=True):
        assert one.name == again.name
        for part in ("clean", "source", "target", "mask"):
            np.testing.assert_array_equal(getattr(one, part), getattr(again, part))
    assert len({one.source.tobytes() for group in sessions for one in group}) == 60


def test_photographs_have_the_shape_of_photographs(sessions):
    for number, group in enumerate(sessions):
        assert [one.name for one in group] == [f"{number}_{i}" for i in range(5)]
        assert len({one.mask.shape for one in group}) == 1
        for one in group:
            assert one.mask.shape in ((84, 56), (56, 84))
            for image in (one.clean, one.source, one.target):
                assert image.shape == (*one.mask.shape, 3)
                assert image.dtype == np.float32
                assert 0 <= image.min() <= image.max() <= 1


def test_a_larger_picture_shows_the_same_scene():
    small, large = portraits.session(5)[2], portraits.session(5, long=168)[2]
    reduced = large.clean.reshape(small.mask.shape[0], 2, small.mask.shape[1], 2, 3).mean((1, 3))
    assert np.abs(reduced - small.clean).mean() < 0.05
    assert (large.mask[::2, ::2] == small.mask).mean() > 0.97


def test_a_person_fills_a_part_of_the_frame_from_below(sessions):
    for group in sessions:
        for one in group:
            assert 0.15 < one.mask.mean() < 0.75
            assert one.mask[-1].any()
            assert not one.mask[0].all()


def test_the_expert_lifts_and_warms_people_and_calms_and_cools_the_rest():
    grey = np.full((4, 6, 3), 0.4)
    mask = np.arange(6)[None] < np.full((4, 1), 3)
    retouched = portraits.expert(grey, mask)
    person, rest = retouched[0, 0], retouched[0, -1]
    assert person[0] > person[1] > person[2]
    assert rest[0] < rest[1] < rest[2]
    assert person.mean() > 0.45 > 0.4 > rest.mean()


def test_the_camera_scatters_colours_that_the_target_keeps_together(sessions):
    """What varies among the targets of a group is composition alone."""
    names = [one.name for group in sessions for one in group]
    groups = [metrics.group_id(name) for name in names]
    scatter = {
        part: metrics.mglc(
            [metrics.mean_ab(getattr(one, part)) for group in sessions for one in group], groups
        )
        for part in ("clean", "source", "target")
    }
    assert scatter["source"] > 2 * scatter["clean"]


def test_a_correct_camera_only_flattens():
    """No error of exposure or balance, full contrast and saturation: a veil of 6 % and nothing else."""
    scene = np.random.default_rng(0).uniform(0, 1, (4, 5, 3))
    np.testing.assert_allclose(portraits.camera(scene, 0, 0, 0, 1, 1), 0.06 + 0.94 * scene, atol=1e-12)
