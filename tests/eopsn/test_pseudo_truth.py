"""The table of pseudo ground truth."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric

from cvpr21lib import launch
from cvpr21lib.eopsn import pseudo_truth
from cvpr21lib.eopsn.memory import Memory, Remembered
from cvpr21lib.eopsn.pseudo_truth import PseudoTruth, Rows, no_rows
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options

NAMES = ["street/01 (a).png", 17, "ночь", "000000000139"]


def rows(*found: tuple[int, int, float]) -> Rows:
    """Boxes of a tenth of the image: (image, label, left edge)."""
    image, label, left = zip(*found, strict=True)
    x = torch.tensor(left)
    box = torch.stack([x, torch.full_like(x, 0.2), x + 0.1, torch.full_like(x, 0.4)], 1)
    return Rows(torch.tensor(image), torch.tensor(label), box)


def same(one: Rows, other: Rows) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_table_starts_empty_and_only_grows():
    table = PseudoTruth(NAMES)
    assert (len(table), table.classes, table.images_with_boxes()) == (0, 0, [])
    table.add(rows((1, 0, 0.1), (3, 0, 0.1)))
    before = table.rows
    table.add(rows((1, 1, 0.5)))
    table.add(no_rows())
    assert same(table.rows.take(slice(2)), before)
    assert (len(table), table.classes, table.images_with_boxes()) == (3, 2, [1, 3])
    assert same(table.of(1), rows((1, 0, 0.1), (1, 1, 0.5)))
    assert len(table.of(0).label) == 0


def test_an_object_has_one_box_but_officially():
    twice = rows((1, 0, 0.1), (1, 2, 0.11), (2, 0, 0.1), (1, 1, 0.17))  # IoU 0.82 with the first, and 0.18
    ours, official = PseudoTruth(NAMES), PseudoTruth(NAMES, official=True)
    for table in (ours, official):
        table.add(rows((1, 0, 0.1)))
        table.add(twice)
    assert same(ours.rows, rows((1, 0, 0.1), (2, 0, 0.1), (1, 1, 0.17)))
    assert len(official) == 5


def test_objects_that_are_new_twice_are_added_once():
    table = PseudoTruth(NAMES)
    table.add(rows((1, 0, 0.1), (1, 1, 0.1)))
    assert same(table.rows, rows((1, 0, 0.1)))


def test_class_weights_follow_from_the_table():
    table = PseudoTruth(NAMES)
    assert table.class_weight(3, 4).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    table.add(rows((0, 0, 0.1), (1, 2, 0.1)))
    assert table.class_weight(3, 4).tolist() == [1, 1, 1, 1, 1, 0, 1, 0]


def test_the_exemplar_image_has_boxes_and_is_not_in_the_batch():
    table = PseudoTruth(NAMES)
    assert table.another_image([]) is None
    table.add(rows((0, 0, 0.1), (2, 0, 0.1), (3, 0, 0.1)))
    generator = torch.Generator().manual_seed(0)
    assert {table.another_image([0, 1], generator) for _ in range(40)} == {2, 3}
    assert table.another_image([0, 2, 3]) is None


def test_relative_boxes_are_those_of_the_stored_image_and_come_back():
    boxes = torch.tensor([[0.0, 0, 50, 40], [100, 20, 200, 60]])
    assert pseudo_truth.relative(boxes, (80, 200)).tolist() == [[0, 0, 0.25, 0.5], [0.5, 0.25, 1, 0.75]]
    mirrored = pseudo_truth.relative(boxes, (80, 200), flipped=True)
    assert mirrored.tolist() == [[0.75, 0, 1, 0.5], [0, 0.25, 0.5, 0.75]]
    for flipped in (False, True):
        back = pseudo_truth.absolute(pseudo_truth.relative(boxes, (80, 200), flipped), (80, 200), flipped)
        torch.testing.assert_close(back, boxes)


def test_a_saved_table_is_the_same_by_name_in_a_data_set_of_another_order(tmp_path):
    table = PseudoTruth(NAMES)
    table.add(rows((0, 0, 0.1), (1, 0, 0.3), (2, 1, 0.5)))
    table.merge(launch.fabric(Options(accelerator="cpu")))
    table.add(rows((3, 1, 0.5)))
    torch.save(table.state_dict(), tmp_path / "table.pt")
    state = torch.load(tmp_path / "table.pt", weights_only=True)
    resumed = PseudoTruth(NAMES)
    resumed.load_state_dict(state)
    assert same(resumed.rows, table.rows)
    assert resumed.merged == table.merged == 3
    turned = PseudoTruth(NAMES[::-1])
    turned.load_state_dict(state)
    assert [turned.images[place] for place in turned.rows.image] == NAMES
    assert torch.equal(turned.rows.box, table.rows.box)


def test_an_image_that_is_gone_is_named():
    table = PseudoTruth(NAMES)
    table.add(rows((2, 0, 0.1)))
    with pytest.raises(InputError, match="in image 'ночь', which is not among the 2 images"):
        PseudoTruth(NAMES[:2]).load_state_dict(table.state_dict())


def test_two_images_with_one_id_are_named():
    with pytest.raises(InputError, match="two images have the id 17;"):
        PseudoTruth(["a", 17, "b", 17])
    assert PseudoTruth(["17", 17]).images == ["17", 17]


@pytest.mark.parametrize("image", [-1, 4])
def test_a_place_outside_the_data_set_is_named(image):
    with pytest.raises(InputError, match=f"images {image} to {image}; expected places in the list of 4"):
        PseudoTruth(NAMES).add(rows((image, 0, 0.1)))


def merge_in_two_rounds(fabric: Fabric) -> dict[str, list]:
    """Rank 0 finds two boxes and rank 1 three, one of the same object; then only rank 1 finds one."""
    table, remembered = PseudoTruth(NAMES), Memory()
    found = [rows((0, 0, 0.1), (1, 0, 0.1)), rows((2, 0, 0.1), (1, 0, 0.11), (3, 0, 0.1))]
    table.add(found[fabric.global_rank])
    table.merge(fabric)
    assert remembered.content(fabric) is None
    if fabric.global_rank == 1:
        table.add(rows((3, 1, 0.6)))
        part = (torch.ones(2, 5), torch.tensor([0.5, 0.7]), torch.tensor([3, 2]), torch.ones(2, 4))
        remembered.load_state_dict(Remembered(*part)._asdict())
    table.merge(fabric)
    content = remembered.content(fabric)
    seen = fabric.all_gather(torch.cat([column.flatten() for column in (*table.rows, *content)]))
    assert torch.equal(seen[0], seen[1])
    assert len(table) == table.merged
    return {
        "label": table.rows.label.tolist(),
        "image": table.rows.image.tolist(),
        "left": table.rows.box[:, 0].tolist(),
        "remembered": content.image.tolist(),
    }


def test_two_processes_end_with_one_table_and_one_memory():
    end = launch.start(launch.fabric(Options(devices=2, accelerator="cpu")), merge_in_two_rounds)
    expected = rows((0, 0, 0.1), (1, 0, 0.1), (2, 0, 0.1), (3, 0, 0.1), (3, 1, 0.6))
    assert end == {
        "label": expected.label.tolist(),
        "image": expected.image.tolist(),
        "left": expected.box[:, 0].tolist(),
        "remembered": [2, 3],
    }


def test_merging_in_one_process_changes_nothing_but_the_count():
    table = PseudoTruth(NAMES)
    table.add(rows((0, 0, 0.1), (1, 0, 0.1)))
    before = table.rows
    table.merge(launch.fabric(Options(accelerator="cpu")))
    assert same(table.rows, before)
    assert table.merged == 2
