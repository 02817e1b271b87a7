from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cvpr21lib.eps import CAM, EPS, ClassMaps, ResNet38, class_maps, mask, scan
from cvpr21lib.eps.pseudo_masks import SCALES
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import metrics
from tests.conftest import photograph
from tests.eps import literal

torch.set_num_threads(1)

THRESHOLDS = np.arange(15, 35) / 100


def network(kind: str) -> EPS | CAM:
    torch.manual_seed(3)
    net = (EPS if kind == "eps" else CAM)(ResNet38(32), 6).eval()
    net.fc8.weight.data *= 30
    return net


def labels(*classes: int) -> torch.Tensor:
    return torch.zeros(6).index_fill(0, torch.tensor(classes, dtype=torch.long), 1)


@pytest.mark.parametrize("size", [(41, 56), (23, 90)])
@pytest.mark.parametrize("kind", ["eps", "cls"])
def test_maps_and_masks_are_those_of_the_literal_order(kind, size):
    net, image, label = network(kind), photograph(0, *size), labels(0, 2, 5)
    expected = literal.class_maps(net, image, label, SCALES)
    for backbone in (net.backbone, net.backbone.folded()):
        net.backbone = backbone
        found = class_maps(net, image, label)
        assert found.classes == (0, 2, 5)
        np.testing.assert_allclose(found.maps, expected[[0, 2, 5]], rtol=0, atol=1e-5)
        for threshold in (0.0, 0.2, 0.7):
            assert (mask(found, threshold) == literal.mask(expected, threshold)).mean() > 0.999


def test_each_map_reaches_almost_one():
    found = class_maps(network("eps"), photograph(0, 30, 40), labels(1, 3))
    assert found.maps.min() >= 0
    assert ((found.maps.amax((1, 2)) > 0.999) & (found.maps.amax((1, 2)) < 1)).all()


@pytest.mark.parametrize("kind", ["eps", "cls"])
def test_a_mirrored_image_has_mirrored_maps(kind):
    net, image = network(kind), photograph(1, 37, 50)
    plain = class_maps(net, image, labels(1, 4)).maps
    mirrored = class_maps(net, image[:, ::-1].copy(), labels(1, 4)).maps
    torch.testing.assert_close(mirrored.flip(2), plain, rtol=0, atol=1e-5)


def test_only_labelled_classes_are_in_the_mask():
    net, image = network("eps"), photograph(2, 30, 40)
    assert set(np.unique(mask(class_maps(net, image, labels(1, 3)), 0.0))) <= {0, 2, 4}
    alone = class_maps(net, image, np.array([0, 0, 0, 1, 0, 0])).maps
    torch.testing.assert_close(alone[0], class_maps(net, image, labels(1, 3)).maps[1])


def test_an_image_without_labels_is_all_background():
    found = class_maps(network("cls"), photograph(0, 9, 12), labels())
    assert found.classes == ()
    assert mask(found).shape == (9, 12)
    assert not mask(found).any()
    target = np.ones((9, 12), np.uint8)
    assert scan(found, target, [0.1, 0.2], 7)[:, 1, 0].tolist() == [108, 108]


def test_the_smallest_image_has_a_mask():
    assert mask(class_maps(network("eps"), photograph(0, 1, 1), labels(0))).shape == (1, 1)


def test_ties_go_to_the_background_and_then_to_the_first_class():
    maps = torch.tensor([[[0.2, 0.3, 0.25]], [[0.1, 0.3, 0.9]]])
    assert mask(ClassMaps((1, 4), maps), 0.2).tolist() == [[0, 2, 5]]
    assert mask(ClassMaps((1, 4), maps), 0.3).tolist() == [[0, 0, 5]]


def test_a_scan_is_the_confusion_of_every_mask():
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(
        np.round(rng.random((3, 40, 30)), 2).astype(np.float32)
    )  # many values at thresholds
    found, target = ClassMaps((0, 2, 3), maps), rng.integers(0, 5, (40, 30)).astype(np.uint8)
    target[:5] = 255
    scanned = scan(found, target, THRESHOLDS, 5)
    assert scanned.shape == (20, 5, 5)
    for threshold, matrix in zip(THRESHOLDS, scanned, strict=True):
        np.testing.assert_array_equal(matrix, metrics.confusion(target, mask(found, threshold), 5))


@pytest.mark.parametrize("thresholds", [[], [0.3, 0.2], [-0.1, 0.2], [0.2, 0.2]])
def test_thresholds_must_ascend(thresholds):
    found = ClassMaps((0,), torch.zeros(1, 2, 2))
    with pytest.raises(InputError, match="ascending"):
        scan(found, np.zeros((2, 2), np.uint8), thresholds, 2)


def test_what_would_go_wrong_silently_is_refused():
    net, image = network("cls"), photograph(0, 8, 8)
    with pytest.raises(InputError, match="training mode"):
        class_maps(network("cls").train(), image, labels(0))
    with pytest.raises(InputError, match=r"uint8 \(8, 8\)"):
        class_maps(net, image[..., 0], labels(0))
    with pytest.raises(InputError, match="float64"):
        class_maps(net, image / 255, labels(0))
    diverged = network("cls")
    diverged.fc8.weight.data.fill_(torch.inf)
    with pytest.raises(InputError, match="diverged"):
        class_maps(diverged, image, labels(0))
    with pytest.raises(InputError, match=r"expected \(6,\)"):
        class_maps(net, image, torch.ones(7))


def test_half_precision_gives_float32_maps_near_those_of_full_precision():
    net, image = network("eps"), photograph(0, 40, 56)
    full = class_maps(net, image, labels(0, 2))
    with torch.autocast("cpu", torch.bfloat16):
        half = class_maps(net, image, labels(0, 2))
    assert half.maps.dtype == torch.float32
    torch.testing.assert_close(half.maps, full.maps, rtol=0, atol=0.1)


def test_any_backbone_serves():
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
    backbone.channels = 8
    found = class_maps(EPS(backbone, 6).eval(), photograph(0, 48, 48), labels(2), scales=(1, 1.5))
    assert found.maps.shape == (1, 48, 48)
