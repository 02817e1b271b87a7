"""The pairwise losses of the victims, and what they remember."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import hashing


def batch(m: int = 4, n: int = 9, bits: int = 6, classes: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(m, bits, generator=generator).tanh().double()
    memory = torch.randn(n, bits, generator=generator).tanh().double()
    y = torch.randint(2, (m, classes), generator=generator).double()
    labels = torch.randint(2, (n, classes), generator=generator).double()
    return u, memory, y, labels


@pytest.mark.parametrize("method", hashing.LOSSES)
def test_gradients(method):
    u, memory, y, labels = batch()
    u.requires_grad_()
    assert torch.autograd.gradcheck(lambda u: hashing.LOSSES[method](u, memory, y, labels), u)


@pytest.mark.parametrize("method", hashing.LOSSES)
def test_the_order_of_bits_and_of_images_does_not_matter(method):
    u, memory, y, labels = batch()
    loss, bits, rows = hashing.LOSSES[method], torch.randperm(6), torch.randperm(9)
    shuffled = loss(u[:, bits], memory[rows][:, bits], y, labels[rows])
    torch.testing.assert_close(shuffled, loss(u, memory, y, labels))


@pytest.mark.parametrize("method", hashing.LOSSES)
def test_codes_that_agree_where_labels_do_cost_less_than_the_opposite(method):
    labels = torch.eye(2).repeat(3, 1)
    codes = labels @ torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]])
    loss = hashing.LOSSES[method]
    swapped = codes * torch.tensor([1.0, 1, -1, -1, 1, 1])[:, None]
    assert loss(codes, codes, labels, labels) < loss(codes, swapped, labels, labels)


def test_hashnet_weighs_the_two_kinds_of_pairs_equally():
    u, memory, _, _ = batch()
    one, other = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])
    y, labels = one.repeat(4, 1), torch.cat([one.repeat(2, 1), other.repeat(7, 1)])
    p = 0.1 * u @ memory.T
    s1, s0, s = 4 * 2, 4 * 7, 4 * 9
    similar = (p.exp().log1p() - p)[:, :2].sum() * s / s1
    others = p.exp().log1p()[:, 2:].sum() * s / s0
    torch.testing.assert_close(hashing.hashnet(u, memory, y, labels), (similar + others) / s)


def test_hashnet_without_similar_pairs_is_finite():
    u, memory, y, labels = batch()
    nothing = torch.zeros_like(labels)
    torch.testing.assert_close(
        hashing.hashnet(u, memory, y, nothing), (0.1 * u @ memory.T).exp().log1p().mean()
    )


def test_an_empty_label_is_similar_to_nothing_not_even_to_itself():
    labels = torch.tensor([[0, 0, 0], [1, 0, 1]])
    assert hashing.similarity(labels, labels).tolist() == [[0, 0], [0, 1]]


def test_labels_of_different_classes_are_refused():
    with pytest.raises(InputError, match=r"shapes \(2, 3\) and \(2, 4\) cannot be compared"):
        hashing.similarity(torch.zeros(2, 3), torch.zeros(2, 4))


def test_codes_hold_no_zeros():
    assert hashing.binary(torch.tensor([-0.5, -0.0, 0.0, 0.5])).tolist() == [-1, 1, 1, 1]


def test_memory_keeps_the_latest_outputs_and_passes_no_gradient_to_them():
    memory = hashing.Memory(4, 2)
    u = torch.ones(2, 2, requires_grad=True)
    outputs = memory.update(torch.tensor([3, 1]), u * torch.tensor([[1.0], [2.0]]))
    assert outputs.tolist() == [[0, 0], [2, 2], [0, 0], [1, 1]]
    assert not outputs.requires_grad
    restored = hashing.Memory(4, 2)
    restored.load_state_dict(memory.state_dict())
    assert torch.equal(restored.outputs, memory.outputs)


def test_the_scale_grows_at_every_200th_training_forward_only():
    continuation = hashing.Continuation()
    z, scales = torch.ones(1), []
    for _ in range(401):
        scales.append(continuation(z).item())
    assert scales[:199] == [1] * 199
    assert scales[199:399] == pytest.approx([2**0.5] * 200)
    assert scales[399:] == pytest.approx([3**0.5] * 2)
    continuation.eval()
    assert [continuation(z).item() for _ in range(300)][-1] == pytest.approx(3**0.5)
    assert continuation.iterations == 401


def test_the_schedule_goes_on_from_a_checkpoint():
    continuation = nn.Sequential(hashing.Continuation())
    for _ in range(399):
        continuation(torch.ones(1))
    restored = nn.Sequential(hashing.Continuation())
    restored.load_state_dict(continuation.state_dict())
    assert restored(torch.ones(1)).item() == pytest.approx(3**0.5)
