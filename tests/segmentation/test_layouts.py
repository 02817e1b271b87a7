"""Lists, and where VOC and COCO are found."""

from __future__ import annotations

import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import image_labels, layout
from cvpr21lib.segmentation.coco import COCO2014
from cvpr21lib.segmentation.voc import CLASSES, VOC2012


def test_lists_name_images_in_any_of_the_usual_ways(tmp_path):
    (tmp_path / "list.txt").write_text(
        "2007_000032\n/JPEGImages/2007_000039.jpg /SegmentationClassAug/2007_000039.png\n\n"
        "/JPEGImages/2008_000003.jpg\r\n2009_000001.v2"
    )
    assert layout.read_list(tmp_path / "list.txt") == (
        "2007_000032",
        "2007_000039",
        "2008_000003",
        "2009_000001.v2",
    )


def test_a_list_that_is_empty_missing_or_names_an_image_twice_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.txt names no image"):
        layout.read_list(tmp_path / "empty.txt")
    with pytest.raises(InputError, match=r"nowhere\.txt does not exist"):
        layout.read_list(tmp_path / "nowhere.txt")
    (tmp_path / "twice.txt").write_text("a\nb\na\n")
    with pytest.raises(InputError, match=r"twice\.txt names a twice"):
        layout.read_list(tmp_path / "twice.txt")


@pytest.mark.parametrize("where", ["VOC2012", "VOCdevkit/VOC2012", "."])
def test_voc_is_found_below_and_at_the_root(where, tmp_path):
    root = tmp_path / "data"
    (root / where).mkdir(parents=True)
    image_labels.write(root / where / layout.LABELS, {"2007_000032": (0,)}, CLASSES)
    found = VOC2012.find(root)
    assert found == VOC2012(root / where)
    assert found.labels() == {"2007_000032": (0,)}
    assert VOC2012.find(root / where) == found


def test_voc_and_coco_have_their_official_places(tmp_path):
    voc, coco = VOC2012(tmp_path), COCO2014(tmp_path)
    assert voc.image("2007_000032") == tmp_path / "JPEGImages/2007_000032.jpg"
    assert voc.mask("2007_000032") == tmp_path / "SegmentationClassAug/2007_000032.png"
    name = "COCO_val2014_000000000042"
    assert coco.image(name) == tmp_path / f"val2014/{name}.jpg"
    assert coco.mask(name) == tmp_path / f"SegmentationClass/val2014/{name}.png"


@pytest.mark.parametrize("name", ["000000000042", "COCO_.._000000000042", "COCO_val2014_42/../../x"])
def test_other_names_lead_nowhere(name, tmp_path):
    with pytest.raises(InputError, match="is not a name of COCO 2014"):
        COCO2014(tmp_path).image(name)


def test_a_missing_data_set_is_named_with_the_places_and_the_command(tmp_path):
    with pytest.raises(InputError) as error:
        COCO2014.find(tmp_path)
    for part in ("COCO2014 was not found", str(tmp_path), f"data_scripts.coco2014 --root {tmp_path}"):
        assert part in str(error.value)
    with pytest.raises(InputError, match="data_root is not set: name the folder that holds VOC2012"):
        VOC2012.find(None)


def test_a_half_prepared_data_set_is_not_taken_for_whole(tmp_path):
    (tmp_path / "VOC2012/JPEGImages").mkdir(parents=True)
    with pytest.raises(InputError, match=r"VOC2012 is there but not prepared: image_labels\.json is missing"):
        VOC2012.find(tmp_path)
