"""The discriminator's layout and its spectral norm."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.discriminator import Discriminator, SpectralNormConv

torch.set_num_threads(1)


@pytest.mark.parametrize(("classes", "trained"), [(21, 12_250_048), (38, 13_103_040), (80, 15_210_432)])
def test_official_sizes_and_names(classes, trained):
    with torch.device("meta"):
        state = Discriminator(classes).state_dict()
    vectors = {name for name in state if name.endswith(("weight_u", "weight_v"))}
    assert sum(state[name].numel() for name in vectors) == 17_392
    assert sum(value.numel() for name, value in state.items() if name not in vectors) == trained
    parts = ("bias", "weight_u", "weight_v", "weight_bar")
    assert set(state) == {f"main.{n}.{part}" for n in range(0, 10, 2) for part in parts} | {"fc.weight"}


def test_scores_of_one_image_keep_their_batch():
    net = Discriminator(5, (8, 16), widths=(4, 8), channels=1)
    assert net(torch.rand(1, 1, 8, 16)).shape == (1, 6)


def test_many_forwards_find_the_largest_singular_value():
    layer = SpectralNormConv(3, 8).eval()
    x = torch.rand(1, 3, 8, 8)
    for _ in range(200):
        y = layer(x)
    spectral = torch.linalg.matrix_norm(layer.weight_bar.flatten(1), 2)
    expected = torch.nn.functional.conv2d(x, layer.weight_bar / spectral, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_every_forward_counts_even_in_evaluation():
    net, x = Discriminator(5, (8, 8), widths=(4, 8)).eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert not torch.equal(net(x), net(x))


def test_two_forwards_may_precede_one_backward():
    layer = SpectralNormConv(3, 4)
    (layer(torch.rand(1, 3, 4, 4)).sum() + layer(torch.rand(1, 3, 4, 4)).sum()).backward()
    assert layer.weight_bar.grad is not None


def test_sizes_that_do_not_halve_are_refused():
    with pytest.raises(InputError, match="size is 8 x 12; 3 halvings need multiples of 8 pixels"):
        Discriminator(5, (8, 12), widths=(4, 4, 4))
