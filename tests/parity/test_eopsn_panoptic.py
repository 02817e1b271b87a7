"""Panoptic merge and panoptic quality against numbers of the official code (jd730/EOPSN) and of panopticapi.

The `pq_*` fixtures hold COCO's panoptic ground truth of the images 142238 and 439180 of val2017, from
panopticapi's sample data; in `pq_closed_crowd` more of it is marked as crowds. COCO's annotations are by the
COCO Consortium, under CC BY 4.0 (https://cocodataset.org/#termsofuse). The predictions are that ground truth,
perturbed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvpr21lib.eopsn.merge import Instance, Rule, merge
from cvpr21lib.eopsn.quality import OpenQuality
from cvpr21lib.segmentation import panoptic
from cvpr21lib.segmentation.panoptic import Category, Panoptic, Segment

FIXTURES = Path(__file__).parent / "eopsn"
GROUPS = {
    "closed": "All",
    "closed_things": "Things",
    "known": "All",
    "known_things": "Known Things",
    "unknown": "Unknown Things",
    "stuff": "Stuff",
}


def read(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def segments(entries: list[dict[str, int]]) -> tuple[Segment, ...]:
    return tuple(
        Segment(one["id"], one["category_id"], bool(one.get("iscrowd", 0)), one.get("area"))
        for one in entries
    )


def judged(name: str) -> tuple[OpenQuality, dict[str, Any]]:
    arrays, meta = read(name)
    categories = {one["id"]: Category(one["name"], bool(one["isthing"])) for one in meta["categories"]}
    unknown = [one for one in meta["unknown_names"] or () if one in {c.name for c in categories.values()}]
    quality = OpenQuality(categories, panoptic.numbers_of(unknown, categories))
    for index in range(len(meta["image_ids"])):
        target, pred = (
            Panoptic(arrays[f"in/{side}_{index}"], segments(meta[f"{side}_segments"][index]))
            for side in ("gt", "pred")
        )
        quality.add(target, pred)
    return quality, meta


@pytest.mark.parametrize("name", ["pq_closed", "pq_closed_crowd", "pq_open", "pq_open_b"])
def test_pq_sq_and_rq_of_every_group_and_class(name):
    quality, meta = judged(name)
    numbers = quality.numbers()
    groups = ("known", "known_things", "unknown", "stuff")
    for group in groups if meta["unknown_names"] else ("closed", "closed_things", "stuff"):
        expected = meta["result"][GROUPS[group]]
        assert quality.group(group).classes == expected["n"]
        for score in ("pq", "sq", "rq"):
            assert numbers[f"{group}/{score}"] == pytest.approx(100 * expected[score], abs=1e-9)
    by_class = {key: value for key, value in numbers.items() if key.startswith("pq/")}
    expected = {
        f"pq/{quality.categories[int(number)].name}": 100 * one["pq"]
        for number, one in meta["per_class_nonzero"].items()
    }
    assert by_class == pytest.approx(expected, abs=1e-9)


def test_unknown_recall_and_precision_are_of_the_counts_that_made_rq():
    numbers = judged("pq_open")[0].numbers()
    recall, precision = (numbers[f"unknown/{name}"] for name in ("recall", "precision"))
    assert 2 * recall * precision / (recall + precision) == pytest.approx(numbers["unknown/rq"])


@pytest.mark.parametrize("cropped", [False, True])
def test_merge(cropped):
    arrays, meta = read("combine")
    count, height, width = meta["shape"]
    masks = np.unpackbits(arrays["in/masks_packed"], axis=1)[:, : height * width]
    masks = masks.reshape(count, height, width).astype(bool)
    scores, classes = arrays["in/scores"].tolist(), arrays["in/classes"].tolist()
    instances = [
        Instance.from_full(*one) if cropped else Instance(one[0], 0, 0, *one[1:])
        for one in zip(masks, scores, classes, strict=True)
    ]
    rule = Rule(meta["known_conf"], meta["unknown_conf"], meta["overlap"], meta["stuff_area_limit"])
    merged = merge(instances, arrays["in/sem"], {label: label for label in range(1, 54)}, rule)

    np.testing.assert_array_equal(merged.panoptic.ids, arrays["out/panoptic"])
    assert [(one.id, one.category) for one in merged.panoptic.segments] == [
        (one["id"], one["category_id"]) for one in meta["segments"]
    ]
    assert [None if one is None else scores[one] for one in merged.instances] == [
        one.get("score") for one in meta["segments"]
    ]
    for segment, expected in zip(merged.panoptic.segments, meta["segments"], strict=True):
        assert segment.area == expected.get("area", (arrays["out/panoptic"] == segment.id).sum())
