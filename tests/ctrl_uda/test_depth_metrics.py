from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cvpr21lib.ctrl_uda import depth_metrics
from cvpr21lib.errors import InputError

torch.set_num_threads(1)


def inverse(metres: np.ndarray) -> np.ndarray:
    return 65536 / (100 * np.asarray(metres, float) + 1)


def test_inverse_depth_becomes_metres():
    found = depth_metrics.to_metres(np.array([65536, 648.8713, 65.4705, 1.0]))
    np.testing.assert_allclose(found, [0, 1, 10, 655.35], rtol=1e-5)
    assert np.isnan(depth_metrics.to_metres(np.array([0.0, -3.0]))).all()


def test_a_perfect_prediction_has_no_error():
    true = np.array([[1.0, 5, 30, 79]])
    found = depth_metrics.errors(inverse(true), true)
    assert found[:4] == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert found[4:] == (1, 1, 1, 1)


def test_errors_by_hand():
    true, pred = np.array([[10.0, 20, 40]]), np.array([[12.0, 20, 24]])
    found = depth_metrics.errors(inverse(pred), true)
    assert found.abs_rel == pytest.approx((0.2 + 0 + 0.4) / 3)
    assert found.sq_rel == pytest.approx((4 / 10 + 0 + 16**2 / 40) / 3)
    assert found.rmse == pytest.approx(np.sqrt((4 + 256) / 3))
    assert found.rmse_log == pytest.approx(np.sqrt((np.log(1.2) ** 2 + np.log(0.6) ** 2) / 3))
    assert (found.delta1, found.delta2, found.delta3) == pytest.approx((2 / 3, 2 / 3, 1))


def test_unknown_depth_and_depth_beyond_the_cap_do_not_count():
    true = np.array([[10.0, np.nan, 0, -1, np.inf, 80.5, 80]])
    pred = inverse(np.full(7, 8.0))[None]
    pred[0, 6] = inverse(80.0)
    found = depth_metrics.errors(pred, true)
    assert found.abs_rel == pytest.approx(0.2 / 2)
    assert found.covered == 1
    assert depth_metrics.errors(pred, true, cap=50).abs_rel == pytest.approx(0.2)


def test_negative_depth_is_discarded_and_told():
    true = np.full((1, 4), 10.0)
    depth = np.array([[-2.0, 0, np.nan, inverse(10.0)]])
    found = depth_metrics.errors(depth, true)
    assert found.covered == 0.25
    assert found.abs_rel == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="of 3, 3 have a true depth up to 80 m, and none"):
        depth_metrics.errors(depth[:, :3], true[:, :3])


def test_predictions_are_brought_into_range():
    true = np.array([[40.0, 40]])
    depth = np.array([[inverse(600.0), 1e9]])  # far beyond the cap, and nearer than the camera
    found = depth_metrics.errors(depth, true)
    assert found.abs_rel == pytest.approx((1 + (40 - 1e-3) / 40) / 2)


class Flat(nn.Module):
    """Says 10 m everywhere, at a quarter of the image's size."""

    def forward(self, image: torch.Tensor) -> tuple[None, torch.Tensor]:
        assert not self.training
        n, _, h, w = image.shape
        return None, torch.full((n, 1, h // 4, w // 4), float(inverse(10.0)))


def test_a_data_set_is_the_mean_of_its_images_and_the_cap_is_named():
    image = torch.zeros(3, 8, 8)
    known = np.full((6, 7), 10.0)
    sparse = np.full((6, 7), np.nan)
    sparse[0, 0] = 20
    network = Flat().train()
    found = depth_metrics.evaluate(network, [(image, known, "a"), (image, sparse, "b")], progress=False)
    assert found["abs_rel@80m"] == pytest.approx(0.25, abs=1e-5)
    assert found["delta1@80m"] == 0.5
    assert network.training
    assert "rmse@50m" in depth_metrics.evaluate(network, [(image, known, "a")], cap=50, progress=False)


def test_what_cannot_be_measured_is_named():
    image = torch.zeros(3, 8, 8)
    with pytest.raises(InputError, match=r"erfurt: no pixel counts: of 4, 0 have a true depth"):
        depth_metrics.evaluate(Flat(), [(image, np.zeros((2, 2)), "erfurt")], progress=False)
    with pytest.raises(InputError, match="no images"):
        depth_metrics.evaluate(Flat(), [], progress=False)
    with pytest.raises(InputError, match="resize one of them"):
        depth_metrics.errors(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(InputError, match="the cap is 0 m"):
        depth_metrics.errors(np.ones((2, 2)), np.ones((2, 2)), cap=0)
