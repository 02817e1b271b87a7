"""A folder of predictions against a miniature of COCO's panoptic ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.eopsn.evaluate import evaluate
from cvpr21lib.eopsn.quality import OpenQuality
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import panoptic
from cvpr21lib.segmentation.panoptic import Annotation, Category, Panoptic, Segment

CATEGORIES = {
    1: Category("person", True),
    3: Category("car", True),
    21: Category("cow", True),
    184: Category("tree", False),
}
COUNT = 20


def image(seed: int) -> tuple[Panoptic, Panoptic]:
    """Truth, and a prediction a few pixels beside it, which does not know cars and cows; void at the left."""
    rng = np.random.default_rng(seed)
    target = np.full((30, 40), 500000)
    target[:, :4] = 0
    for number in range(4):
        top, left = int(rng.integers(0, 15)), int(rng.integers(0, 25))
        target[top : top + 12, left : left + 12] = 70000 + number
    shift = int(rng.integers(0, 4))
    pred = np.roll(target, shift, axis=1)
    kinds = [int(rng.choice([1, 3, 21])) for _ in range(4)]
    category = {500000: 184} | {70000 + number: kind for number, kind in enumerate(kinds)}
    said = {one: UNKNOWN if kind in (3, 21) else kind for one, kind in category.items()}
    segments, guesses = (
        tuple(Segment(int(one), names[int(one)]) for one in np.unique(ids) if one)
        for ids, names in ((target, category), (pred, said))
    )
    return Panoptic(target, segments), Panoptic(pred, guesses)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`truth.json` and `predictions.json`, with their PNGs."""
    annotations: dict[str, dict[panoptic.ImageId, Annotation]] = {"truth": {}, "predictions": {}}
    for name in annotations:
        (tmp_path / name).mkdir()
    for number in range(COUNT):
        # half of the names are numbers and half are not
        image_id = number if number % 2 else f"street_{number}"
        for name, one in zip(annotations, image(number), strict=True):
            file_name = f"{name}_{number}.png"
            panoptic.write_png(tmp_path / name / file_name, one.ids)
            annotations[name][image_id] = Annotation(file_name, one.segments, one.ids.shape)
    panoptic.write_json(tmp_path / "truth.json", annotations["truth"], CATEGORIES)
    panoptic.write_json(tmp_path / "predictions.json", annotations["predictions"])
    return tmp_path


def run(tree: Path, **other: object) -> dict[str, float]:
    unknown = {"unknown": ("car", "cow")} | other
    return evaluate(tree / "predictions.json", tree / "truth.json", progress=False, **unknown)


def change(path: Path, how) -> None:
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def test_files_give_the_numbers_of_their_arrays(tree):
    quality = OpenQuality(CATEGORIES, (3, 21))
    for number in range(COUNT):
        quality.add(*image(number))
    made = run(tree)
    assert made == quality.numbers()
    assert 0 < made["unknown/pq"] < 100
    json.dumps(made)  # fit for a record


def test_numbers_are_the_same_for_any_number_of_processes(tree):
    assert run(tree, workers=2) == run(tree)


def test_an_error_in_another_process_is_the_same_error(tree):
    (tree / "predictions/predictions_5.png").write_bytes(b"")
    for workers in (1, 2):
        with pytest.raises(InputError, match=r"predictions_5\.png is damaged or cut short"):
            run(tree, workers=workers)


def test_folders_may_lie_elsewhere(tree):
    expected = run(tree)
    (tree / "predictions").rename(tree / "elsewhere")
    with pytest.raises(
        InputError, match=r"predictions\.json are expected in .*predictions, which is no folder"
    ):
        run(tree)
    assert run(tree, predictions_folder=tree / "elsewhere", truth_folder=tree / "truth") == expected


def test_the_truth_against_itself_is_perfect(tree):
    made = evaluate(tree / "truth.json", tree / "truth.json", progress=False)
    assert set(made.values()) == {100}
    assert {"closed/pq", "closed_things/pq", "stuff/pq", "pq/car"} <= set(made)


def test_missing_predictions_are_named(tree):
    change(tree / "predictions.json", lambda content: content["annotations"].pop(3))
    with pytest.raises(InputError, match=r"no prediction for 1 of 20 images: 3\. An image in which nothing"):
        run(tree)


def test_a_missing_png_is_named(tree):
    (tree / "predictions/predictions_7.png").unlink()
    with pytest.raises(InputError, match=r"predictions_7\.png does not exist"):
        run(tree)


def test_predictions_that_the_truth_does_not_have_are_left_out(tree):
    expected = run(tree)
    stranger = {"image_id": "x", "file_name": "x.png", "segments_info": [{"id": 1, "category_id": 12345}]}
    change(tree / "predictions.json", lambda content: content["annotations"].append(stranger))
    assert run(tree) == expected


def test_two_predictions_of_one_image(tree):
    change(
        tree / "predictions.json", lambda content: content["annotations"].append(content["annotations"][3])
    )
    with pytest.raises(InputError, match=r"predictions\.json has annotations of image 3 twice"):
        run(tree)


def test_a_png_whose_ids_are_not_in_its_json(tree):
    change(tree / "predictions.json", lambda content: content["annotations"][3]["segments_info"].pop(0))
    with pytest.raises(
        InputError, match=r"predictions_3\.png .*pixels of segments that its list lacks: 7000"
    ):
        run(tree)


def test_a_segment_of_the_json_without_pixels(tree):
    extra = {"id": 9, "category_id": 1}
    change(tree / "truth.json", lambda content: content["annotations"][3]["segments_info"].append(extra))
    with pytest.raises(InputError, match=r"truth_3\.png .*ground truth lists segments that have no pixel: 9"):
        run(tree)


def test_a_prediction_of_another_size(tree):
    path = tree / "predictions/predictions_3.png"
    panoptic.write_png(path, panoptic.read_png(path)[:-1])
    with pytest.raises(InputError, match=r"predictions_3\.png .*has 29×40 pixels and the ground truth 30×40"):
        run(tree)


def test_a_truth_of_another_size_than_its_json(tree):
    path = tree / "truth/truth_3.png"
    panoptic.write_png(path, panoptic.read_png(path)[:-1])
    with pytest.raises(InputError, match=r"truth_3\.png has 29×40 pixels and its JSON says 30×40"):
        run(tree)


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        (55, "is of category 55; truth.json does not have it"),
        (3, "is a car, which is to be unknown; expected -1"),
    ],
)
def test_a_category_that_is_not_judged_is_named_before_the_work(tree, category, reason):
    def how(content):
        content["annotations"][3]["segments_info"][0]["category_id"] = category

    change(tree / "predictions.json", how)
    with pytest.raises(InputError, match=f"image 3: segment 7000. {reason}"):
        run(tree)


def test_unknown_predictions_where_nothing_is_unknown(tree):
    with pytest.raises(InputError, match="does not have it, and no class is unknown"):
        run(tree, unknown=())


def test_a_class_that_there_is_not_cannot_be_unknown(tree):
    with pytest.raises(InputError, match="no category unicorn"):
        run(tree, unknown=("unicorn",))


def test_predictions_are_no_ground_truth(tree):
    with pytest.raises(InputError, match="lists no categories"):
        evaluate(tree / "truth.json", tree / "predictions.json", progress=False)
