"""Root mean squares, largest changes, and what rounding to 8 bits does to them."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.perceptibility import Meter, eight_bits


def photographs(n: int) -> torch.Tensor:
    return torch.randint(256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0)) / 255


def measured(images, attacking):
    meter = Meter()
    meter.update(images, attacking)
    return meter.result()


def test_one_root_over_the_set_not_a_mean_of_roots():
    images = torch.zeros(2, 3, 4, 4)
    attacking = torch.stack([images[0], images[1] + 0.8])
    assert measured(images, attacking).rmse == pytest.approx((0.64 / 2) ** 0.5)  # the mean of roots is 0.4
    assert measured(images, attacking).linf == pytest.approx(0.8)


def test_batches_do_not_matter():
    images = photographs(5)
    attacking = (images + 0.1 * torch.rand_like(images)).clamp(0, 1)
    meter = Meter()
    for part in (slice(0, 4), slice(4, 5), slice(5, 5)):
        meter.update(images[part], attacking[part])
    assert meter.result() == pytest.approx(measured(images, attacking))


def test_a_change_below_half_a_grey_level_does_not_survive_a_file():
    images = photographs(2).clamp(0, 0.9)
    images = eight_bits(images)
    found = measured(images, images + 0.4 / 255)
    assert found.rmse == pytest.approx(0.4 / 255, rel=1e-4)
    assert (found.rmse_8bit, found.linf_8bit) == (0, 0)


def test_a_bound_of_whole_grey_levels_survives_rounding():
    images = photographs(4)
    attacking = (images + (torch.rand_like(images) * 16 - 8) / 255).clamp(0, 1)
    assert measured(images, attacking).linf_8bit <= 8 / 255 + 1e-6


@pytest.mark.parametrize(
    ("images", "attacking", "complaint"),
    [
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5), "cannot be compared"),
        (torch.zeros(3, 4, 4), torch.zeros(3, 4, 4), "cannot be compared"),
        (torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), torch.nan), "NaN or infinite"),
    ],
)
def test_what_cannot_be_measured_is_named(images, attacking, complaint):
    with pytest.raises(InputError, match=complaint):
        Meter().update(images, attacking)


def test_nothing_measured_is_an_error_not_a_zero():
    with pytest.raises(InputError, match="no images were measured"):
        Meter().result()
