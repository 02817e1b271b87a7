"""Database codes: computed once, kept, and refused where they belong to another network or other images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import database
from cvpr21lib.prosgan.data import InMemory

IMAGES = InMemory(torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0)), np.ones((10, 2)))


class HashNet(nn.Sequential):
    """u (N, 12); dropout and batch statistics would show if it were not in evaluation mode."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(48, 12), nn.Tanh())
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        self.seen += len(x)
        return super().forward(x)


def test_codes_are_the_signs_in_evaluation_mode_for_any_batch():
    network = HashNet()
    found = database.encode(network, IMAGES, batch=3)
    assert network.training, "its mode is given back"
    assert (found.dtype, found.shape) == (torch.int8, (10, 12))
    with torch.no_grad():
        expected = network.eval()(IMAGES.images).sign()
    torch.testing.assert_close(found.float(), expected)
    torch.testing.assert_close(database.encode(network, IMAGES, batch=10), found)


def test_an_output_of_zero_gives_plus_one():
    network = HashNet()
    nn.init.zeros_(network[3].weight)
    nn.init.zeros_(network[3].bias)
    assert (database.encode(network, IMAGES) == 1).all()


@pytest.mark.parametrize("bits", [1, 8, 12, 13, 64])
def test_kept_codes_come_back_whatever_their_number_of_bits(tmp_path, bits):
    codes = 2 * torch.randint(0, 2, (5, bits), dtype=torch.int8) - 1
    database.write(tmp_path / "codes.npz", codes, "w", "i")
    torch.testing.assert_close(database.read(tmp_path / "codes.npz", "w", "i"), codes)


def test_the_second_time_no_image_is_looked_at(tmp_path):
    network, cache = HashNet(), tmp_path / "deep" / "codes.npz"
    first = database.codes(network, IMAGES, cache)
    assert network.seen == 10
    torch.testing.assert_close(database.codes(network, IMAGES, cache), first)
    assert network.seen == 10
    assert not list(cache.parent.glob(".*")), "nothing half-written is left"


def test_codes_that_another_network_made_are_refused_and_left_alone(tmp_path):
    cache = tmp_path / "codes.npz"
    database.codes(HashNet(0), IMAGES, cache)
    before = cache.read_bytes()
    with pytest.raises(
        InputError, match=r"codes\.npz were made by other weights .*mean nothing; name another"
    ):
        database.codes(HashNet(1), IMAGES, cache)
    assert cache.read_bytes() == before


def test_one_weight_or_one_batch_statistic_is_enough_to_be_another_network():
    network = HashNet()
    prints = {database.fingerprint(network)}
    with torch.no_grad():
        network[3].weight[5, 7] += 1e-6
    prints.add(database.fingerprint(network))
    network[0].running_mean[1] += 1e-6
    prints.add(database.fingerprint(network))
    prints.add(database.fingerprint(HashNet().double()))
    assert len(prints) == 4
    assert database.fingerprint(HashNet()) in prints


def test_codes_of_other_images_are_refused(tmp_path):
    database.codes(HashNet(), IMAGES, tmp_path / "codes.npz")
    others = InMemory(1 - IMAGES.images, IMAGES.labels)
    with pytest.raises(InputError, match="are of other images"):
        database.codes(HashNet(), others, tmp_path / "codes.npz")


@pytest.mark.parametrize("damage", ["cut short", "empty", "text", "another file"])
def test_a_damaged_cache_is_named(tmp_path, damage):
    cache = tmp_path / "codes.npz"
    database.codes(HashNet(), IMAGES, cache)
    whole = cache.read_bytes()
    if damage == "another file":
        np.savez(cache, codes=np.zeros(3))
    else:
        cache.write_bytes({"cut short": whole[:-200], "empty": b"", "text": b"1 -1 1\n"}[damage])
    with pytest.raises(InputError, match=r"the database codes .*codes\.npz are damaged .*remove the file"):
        database.codes(HashNet(), IMAGES, cache)


def test_a_cache_of_another_format_and_one_that_is_not_there_are_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no database codes at .*codes\.npz"):
        database.read(tmp_path / "codes.npz", "w", "i")
    with monkeypatch.context() as patch:
        patch.setattr(database, "FORMAT", 0)
        database.codes(HashNet(), IMAGES, tmp_path / "codes.npz")
    with pytest.raises(InputError, match="of format 0 instead of 1"):
        database.codes(HashNet(), IMAGES, tmp_path / "codes.npz")


def test_a_network_that_has_diverged_leaves_no_cache(tmp_path):
    network = HashNet()
    nn.init.constant_(network[3].bias, torch.nan)
    with pytest.raises(InputError, match="not finite: it has diverged"):
        database.codes(network, IMAGES, tmp_path / "codes.npz")
    assert not (tmp_path / "codes.npz").exists()


def test_no_images_give_no_codes():
    with pytest.raises(InputError, match="no images to encode"):
        database.encode(HashNet(), [])
