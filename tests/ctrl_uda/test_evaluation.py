from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cvpr21lib.ctrl_uda import evaluation
from cvpr21lib.ctrl_uda.label_maps import CLASSES
from cvpr21lib.errors import InputError

torch.set_num_threads(1)


class Reader(nn.Module):
    """A network whose logits are written into its images: the class of each pixel, at any size."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.dropout = nn.Dropout(0.9)  # would spoil them in training mode

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.dropout(F.one_hot(image[:, 0].long(), self.classes).movedim(3, 1).float()), None


def sample(label: np.ndarray, name: str = "a") -> tuple[torch.Tensor, np.ndarray, str]:
    """An image in which `Reader` reads `label`, where it is not void."""
    return torch.from_numpy(np.where(label == 255, 0, label)).float().expand(3, -1, -1), label, name


def evaluate(samples: list, classes: int = 7) -> evaluation.Report:
    return evaluation.evaluate(Reader(classes), samples, CLASSES[classes], progress=False)


def test_a_perfect_network_scores_100_in_every_class_that_occurs():
    label = np.array([[0, 1, 2], [255, 4, 5]])
    report = evaluate([sample(label), sample(np.full((2, 2), 6))])
    assert report.images == 2
    numbers = report.numbers
    assert numbers["miou"] == 100
    assert "iou/nature" not in numbers  # neither labelled nor predicted
    assert {value for name, value in numbers.items() if name.startswith("iou/")} == {100.0}
    assert "left out of the means: nature" in report.table()


def test_rows_are_labels_and_columns_predictions():
    report = evaluate([(torch.full((3, 1, 4), 2.0), np.array([[0, 2, 2, 255]]), "a")])
    expected = np.zeros((7, 7), int)
    expected[0, 2], expected[2, 2] = 1, 2
    np.testing.assert_array_equal(report.confusion, expected)
    assert report.numbers["iou/object"] == pytest.approx(100 * 2 / 3)
    assert report.numbers["iou/flat"] == 0
    assert report.numbers["miou"] == pytest.approx(100 / 3)


def test_one_matrix_counts_all_images():
    """The mean of the images' own scores would be another number."""
    first = (torch.zeros(3, 1, 4), np.array([[0, 0, 0, 1]]), "a")
    second = (torch.zeros(3, 1, 1), np.array([[1]]), "b")
    both = evaluate([first, second])
    np.testing.assert_array_equal(both.confusion, evaluate([first]).confusion + evaluate([second]).confusion)
    assert both.numbers["iou/flat"] == pytest.approx(100 * 3 / 5)


def test_thirteen_classes_are_scored_in_the_matrix_of_sixteen():
    confusion = 10 * np.eye(16, dtype=np.int64)
    confusion[0, 3] = 10  # road that is taken for wall
    numbers = evaluation.Report(confusion, CLASSES[16], 1).numbers
    assert numbers["iou/road"] == 50
    assert numbers["iou/wall"] == 50
    assert numbers["miou"] == pytest.approx((14 * 100 + 100) / 16)
    assert numbers["miou13"] == pytest.approx((12 * 100 + 50) / 13)
    assert "miou13" not in evaluation.Report(np.eye(7, dtype=np.int64), CLASSES[7], 1).numbers


def test_the_size_of_the_label_is_the_size_of_the_evaluation():
    image = torch.tensor([[0.0, 1.0]]).expand(3, 1, 2)
    report = evaluate([(image, np.array([[0, 0, 0, 1, 1, 1]] * 4), "a")])
    assert report.confusion.sum() == 24
    assert report.numbers["miou"] == 100


def test_logits_are_enlarged_with_their_corners_aligned():
    logits = torch.tensor([[[[0.0, 1.0, 0.0]], [[0.6, 0.6, 0.6]]]])
    # at 0, 0.5, 1, 1.5, 2: the first class has 0, 0.5, 1, 0.5, 0
    assert evaluation.predict(logits, (1, 5))[0].tolist() == [[1, 1, 0, 1, 1]]


def test_of_equally_likely_classes_the_lowest_is_taken():
    logits = torch.tensor([1.0, 5, 5, 0, 5])[None, :, None, None].expand(2, 5, 3, 4)
    assert (evaluation.predict(logits, (50, 70)) == 1).all()


def test_the_network_is_evaluated_and_given_back_as_it_was():
    network = Reader(7).train()
    report = evaluation.evaluate(network, [sample(np.full((9, 9), 3))], CLASSES[7], progress=False)
    assert report.numbers["miou"] == 100
    assert network.training


def test_labels_of_any_integer_type_and_negative_ones():
    for dtype in (np.uint8, np.int16, np.int32, np.int64):
        report = evaluate([sample(np.array([[0, 1], [2, 255]], dtype))])
        assert report.confusion.sum() == 3
    report = evaluate([(torch.zeros(3, 1, 2), np.array([[0, -1]]), "a")])
    assert report.confusion.sum() == 1


def test_a_label_outside_the_table_is_named_with_its_image():
    image = torch.zeros(3, 1, 3)
    with pytest.raises(InputError, match="frankfurt: the label holds 7, 18; expected the 7 classes 0 to 6"):
        evaluate([(image, np.array([[7, 18, 0]], np.uint8), "frankfurt")])
    with pytest.raises(InputError, match="the label holds 300"):
        evaluate([(image, np.array([[0, 300, 0]]), "a")])


def test_a_network_of_more_classes_is_refused_where_it_shows():
    with pytest.raises(InputError, match="the prediction holds 12; expected the 7 classes"):
        evaluation.evaluate(
            Reader(16), [(torch.full((3, 1, 2), 12.0), np.array([[0, 1]]), "a")], CLASSES[7], progress=False
        )


def test_nothing_but_void_cannot_be_scored():
    for samples in ([], [sample(np.full((2, 2), 255))]):
        with pytest.raises(InputError, match="no pixel counts"):
            _ = evaluate(samples).numbers


def test_the_table_reads_as_one_would_print_it():
    text = evaluation.Report(np.eye(16, dtype=np.int64), CLASSES[16], 3).table()
    for line in ("| mIoU, 16 classes | 100.0 |", "| mIoU, 13 classes | 100.0 |", "| road | 100.0 |"):
        assert line in text
    assert text.endswith("3 images, 16 pixels")
