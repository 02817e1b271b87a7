"""Panoptic quality and panoptic merge beside their literal forms: same process, one thread, CPU seconds."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.eopsn.merge import Instance, Rule, merge
from cvpr21lib.segmentation import panoptic
from cvpr21lib.segmentation.panoptic import Annotation, Panoptic
from cvpr21lib.segmentation.panoptic_quality import count, match, match_files
from tests.eopsn import literal_panoptic
from tests.parity.test_eopsn_panoptic import read, segments

pytestmark = pytest.mark.benchmark(timer=time.process_time)

PAIRS = 100


@pytest.fixture(scope="module")
def categories() -> list[int]:
    return [one["id"] for one in read("pq_closed")[1]["categories"]]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Panoptic, Panoptic]]:
    """COCO's ground truth of two images, 427×640 and 360×640, beside four perturbed predictions."""
    made = []
    for name in ("pq_closed", "pq_closed_crowd"):
        arrays, meta = read(name)
        for index in range(2):
            made.append(
                tuple(
                    Panoptic(
                        arrays[f"in/{side}_{index}"].astype(np.int32),
                        segments(meta[f"{side}_segments"][index]),
                    )
                    for side in ("gt", "pred")
                )
            )
    return made * (PAIRS // len(made))


def test_pq_of_100_image_pairs(against, pairs, categories):
    def ours() -> np.ndarray:
        return sum(count(match(*pair), categories) for pair in pairs)

    def theirs() -> np.ndarray:
        return sum(literal_panoptic.counts(*pair, categories) for pair in pairs)

    np.testing.assert_allclose(ours(), theirs(), rtol=0, atol=1e-9)
    against(f"PQ of {PAIRS} COCO pairs in memory", ours, theirs, 5, time.process_time)


def test_pq_of_100_image_pairs_from_their_files(against, pairs, categories, tmp_path):
    """Decoding PNGs, which both do with Pillow, is most of the work that is left."""
    annotations = []
    for index, pair in enumerate(pairs[:4]):
        names = [f"{side}_{index}.png" for side in ("target", "pred")]
        for name, one in zip(names, pair, strict=True):
            panoptic.write_png(tmp_path / name, one.ids)
        annotations.append([Annotation(name, one.segments) for name, one in zip(names, pair, strict=True)])
    annotations *= len(pairs) // len(annotations)

    def ours() -> np.ndarray:
        return sum(
            count(match_files(target, tmp_path, pred, tmp_path), categories) for target, pred in annotations
        )

    def load(annotation: Annotation) -> Panoptic:
        return Panoptic(literal_panoptic.read_png(tmp_path / annotation.file_name), annotation.segments)

    def theirs() -> np.ndarray:
        return sum(
            literal_panoptic.counts(load(target), load(pred), categories) for target, pred in annotations
        )

    np.testing.assert_allclose(ours(), theirs(), rtol=0, atol=1e-9)
    against(f"PQ of {PAIRS} COCO pairs from PNG files", ours, theirs, 3, time.process_time)


@pytest.mark.parametrize("size", [(480, 640), (800, 1088)], ids=["480x640", "800x1088"])
def test_merge_of_100_detections(against, size):
    """The masks are given: in their boxes, as the network makes them, against the whole image each."""
    height, width = size
    rng = np.random.default_rng(0)
    semantic = np.kron(rng.integers(0, 55, (8, 8)), np.ones((height // 8, width // 8), np.int64))
    instances, full = [], np.zeros((100, height, width), bool)
    for mask, score in zip(full, rng.uniform(0.05, 1, 100).tolist(), strict=True):
        h, w = (int(side * 10 ** rng.uniform(-1.5, -0.3)) for side in size)  # 3 % to a half of the side
        top, left = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        y, x = np.mgrid[:h, :w]
        crop = ((2 * y + 1 - h) / h) ** 2 + ((2 * x + 1 - w) / w) ** 2 < 1
        mask[top : top + h, left : left + w] = crop
        category = UNKNOWN if rng.random() < 0.3 else 1
        instances.append(Instance(crop, top, left, score, category))
    stuff = {label: label for label in range(1, 54)}
    scores, categories = [one.score for one in instances], [one.category for one in instances]

    def ours() -> np.ndarray:
        return merge(instances, semantic, stuff).panoptic.ids

    def theirs() -> np.ndarray:
        return literal_panoptic.merge(full, scores, categories, semantic, stuff, Rule())[0]

    np.testing.assert_array_equal(ours(), theirs())
    against(f"panoptic merge of 100 detections, {height}×{width}", ours, theirs, 10, time.process_time)
