"""What a network sees in photographs becomes files that COCO's judges read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from cvpr21lib import cli
from cvpr21lib.eopsn import classes, data, discoveries, predict, trained
from cvpr21lib.eopsn.discoveries import Discoveries, Hidden
from cvpr21lib.eopsn.evaluate import evaluate
from cvpr21lib.eopsn.merge import Rule
from cvpr21lib.eopsn.model import PanopticFPN, Widths, bgr, panoptic_fpn
from cvpr21lib.eopsn.pseudo_truth import Rows, no_rows
from cvpr21lib.eopsn.recipe import damp
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import panoptic
from cvpr21lib.segmentation.coco2017 import COCO2017
from tests.eopsn import miniature, narrow

K5 = classes.of_coco(5)
EVERYTHING = Rule(known_score=0.0, unknown_score=0.0, stuff_area=1)


@pytest.fixture
def net() -> PanopticFPN:
    """Untrained; sees several things and kinds of stuff in every image."""
    torch.manual_seed(0)
    config = trained.config("suppression", 5, base=narrow.config(score_threshold=0.01, detections=10))
    net = panoptic_fpn(config, Widths(8, 16, 4, 16, 32))
    damp(net.trunk.body)
    return net.eval()


def test_a_folders_predictions_are_scored_as_the_data_set_is(tmp_path, miniature_coco2017, net):
    layout = COCO2017.find(miniature_coco2017(), 5)
    expected = predict.score(
        net, data.Test(layout, side=96), K5, Fabric(accelerator="cpu"), EVERYTHING, progress=False
    )
    out = predict.folder(
        net, layout.images("val"), tmp_path / "out.json", K5, side=96, rule=EVERYTHING, progress=False
    )
    unknown = classes.UNKNOWN_THINGS[5]
    assert evaluate(out, layout.panoptic("val"), unknown=unknown, progress=False) == expected
    found = panoptic.read_json(out)
    assert list(found.images) == [2, 9, 16]
    for annotation in found.images.values():
        assert annotation.segments
        ids = panoptic.load(annotation, out.with_suffix("")).ids
        assert set(np.unique(ids)) - {0} == {segment.id for segment in annotation.segments}


def test_the_commands_segment_photographs_and_measure_them(
    tmp_path, miniature_coco2017, net, monkeypatch, capsys
):
    layout = COCO2017.find(miniature_coco2017(), 5)
    monkeypatch.setattr(trained, "load", lambda weights, config, k: net)
    words = ["--weights", "net.safetensors", "--k", "5", "--method", "suppression", "--device", "cpu"]
    out = tmp_path / "out.json"
    assert cli.main(["segment", str(layout.images("val")), "--out", str(out), *words]) == 0
    assert "3 photographs segmented" in capsys.readouterr().out
    assert cli.main(["evaluate", "eopsn", str(out), "--truth", str(layout.panoptic("val")), "--k", "5"]) == 0
    shown = capsys.readouterr().out
    numbers = evaluate(out, layout.panoptic("val"), unknown=classes.UNKNOWN_THINGS[5], progress=False)
    assert f"{'known/pq':<28} {numbers['known/pq']:.2f}" in shown.splitlines()


def test_segments_have_cocos_categories_and_minus_one_for_the_unknown(net):
    image = bgr(torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8))
    with torch.no_grad():
        seen = predict.panoptic_map(net, image, (50, 75), K5, EVERYTHING)
    assert seen.ids.shape == (50, 75)
    assert {one.category for one in seen.segments} <= {-1, *K5.known, *K5.stuff.values()}


def test_the_photograph_of_a_folder_comes_to_the_network_as_that_of_the_data_set(miniature_coco2017):
    layout = COCO2017.find(miniature_coco2017(), 5)
    test = data.Test(layout, side=70, longest=90)
    for picture in (test[place] for place in range(len(test))):
        pixels = np.asarray(Image.open(layout.images("val") / picture.file.file_name))
        torch.testing.assert_close(predict._input(pixels, 70, 90), picture.image)


def test_names_that_are_no_numbers_stay_names(tmp_path, net):
    for name in ("0012.png", "noon.png"):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a photograph")
    out = predict.folder(net, tmp_path, tmp_path / "seen.json", K5, side=40, progress=False)
    assert [one["image_id"] for one in json.loads(out.read_text())["annotations"]] == [12, "noon"]


def test_a_list_says_which_images_are_wanted_and_their_ids(tmp_path, miniature_coco2017, net):
    layout = COCO2017.find(miniature_coco2017(), 5)
    out = predict.folder(
        net,
        layout.images("train"),
        tmp_path / "out.json",
        K5,
        listed=layout.panoptic("train"),
        side=48,
        progress=False,
    )
    assert miniature.NAMED in panoptic.read_json(out).images
    first = sorted(layout.images("train").iterdir())[0]
    first.unlink()
    with pytest.raises(InputError, match=f"1 of 5 images of .* are missing in .*: {first.name}"):
        predict.folder(net, first.parent, out, K5, listed=layout.panoptic("train"), progress=False)


def test_what_cannot_be_predicted_is_named(tmp_path, net):
    photographs = tmp_path / "photographs"
    with pytest.raises(InputError, match="photographs does not exist"):
        predict.folder(net, photographs, tmp_path / "out.json", K5)
    photographs.mkdir()
    with pytest.raises(InputError, match="holds no photographs"):
        predict.folder(net, photographs, tmp_path / "out.json", K5)
    with pytest.raises(InputError, match="expected the name of a JSON file"):
        predict.folder(net, photographs, tmp_path / "out", K5)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(photographs / "7.png")
    shutil.copy(photographs / "7.png", photographs / "007.png")
    with pytest.raises(InputError, match=r"007.png and .*7.png have the same id, 7"):
        predict.folder(net, photographs, tmp_path / "out.json", K5)
    (photographs / "007.png").write_bytes(b"half a pho")
    (photographs / "7.png").unlink()
    with pytest.raises(InputError, match=r"007.png is damaged"):
        predict.folder(net, photographs, tmp_path / "out.json", K5, progress=False)
    assert not (tmp_path / "out.json").exists(), "the JSON says that the predictions are whole"


def test_the_command_refuses_weights_of_another_k(tmp_path):
    torch.save({"box_head.cls_score.weight": torch.zeros(73, 4)}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"73 logits per box, as void suppression with K = 10; expected 193"):
        predict.command(tmp_path, tmp_path / "net.pth", tmp_path / "out.json", k=20)


# --- what exemplars really are ----------------------------------------------------------------------------


def test_purity_and_recall_are_those_of_boxes_by_hand():
    """Two cars and a cow; three boxes of class 0, two on one car, and one of class 1 on nothing."""
    hidden = Hidden(
        torch.tensor([4, 4, 1]),
        torch.tensor([[0.0, 0, 0.2, 0.2], [0.5, 0.5, 1, 1], [0, 0, 1, 1]]),
        [miniature.CAR, miniature.COW, miniature.CAR],
    )
    rows = Rows(
        torch.tensor([4, 1, 1, 2]),
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([[0.0, 0, 0.2, 0.19], [0, 0, 1, 0.9], [0, 0, 0.8, 1], [0, 0, 1, 1]]),
    )
    judged = Discoveries(hidden)
    assert judged.summary(no_rows()) == {"exemplar_recall": 0.0}
    assert judged.summary(rows.take(slice(1))) == {"purity": 100.0, "exemplar_recall": pytest.approx(100 / 3)}
    assert judged.summary(rows) == {"purity": 75.0, "exemplar_recall": pytest.approx(200 / 3)}
    assert judged.summary(rows.take(slice(3, 4))) == {"purity": 0.0, "exemplar_recall": 0.0}, "another table"
    numbers = judged.details(rows)
    assert numbers["exemplars/car"] == 3
    assert numbers["exemplars/cow"] == 0
    assert numbers["exemplars/nothing"] == 1
    assert (numbers["exemplar_recall/car"], numbers["exemplar_recall/cow"]) == (100, 0)
    assert (numbers["purity/0"], numbers["class/0"]) == (100, miniature.CAR)
    assert (numbers["purity/1"], numbers["class/1"]) == (100, discoveries.NOTHING)


def test_hidden_objects_are_cocos_unknown_things_without_crowds(miniature_coco2017: Callable[..., Path]):
    training = data.Training(miniature_coco2017(), 5)
    hidden = discoveries.hidden(training)
    shown = [
        category
        for number in range(4)
        for category in (miniature.UNKNOWN[number % 4], miniature.UNKNOWN[(number + 1) % 4])
    ]
    assert sorted(hidden.category) == sorted(one for one in shown if one in (miniature.CAR, miniature.COW))
    assert ((hidden.box >= 0) & (hidden.box <= 1)).all()
    path = training.layout.instances("train")
    path.write_text('{"annotations": [{"category_id": 3}]}')
    with pytest.raises(InputError, match="not in the format of COCO's instances"):
        discoveries.hidden(training)
    path.unlink()
    assert discoveries.hidden(training) is None
