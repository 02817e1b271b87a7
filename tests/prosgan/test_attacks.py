"""All attacks through one interface: bounds, repeatability, bad input, and that each does what it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import attacks, targets
from cvpr21lib.prosgan.generator import Generator
from cvpr21lib.prosgan.prototype import PrototypeNet

torch.set_num_threads(1)

BITS, EPSILON = 8, 16 / 255
LABELS = torch.eye(3)[torch.arange(45) % 3]


class SmallVictim(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
        self.net = nn.Sequential(*convolution, nn.Flatten(), nn.Dropout(), nn.Linear(6 * 64, BITS))
        nn.init.normal_(self.net[5].weight, std=0.2)

    def forward(self, images, alpha=1.0):
        return torch.tanh(alpha * self.net(images))


@pytest.fixture
def victim() -> SmallVictim:
    return SmallVictim()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def aims() -> targets.Targets:
    return targets.draw(LABELS, 6, seed=2)


def codes() -> torch.Tensor:
    return torch.randn(45, BITS, generator=torch.Generator().manual_seed(3)).sign()


def prosgan(**settings) -> attacks.ProSGAN:
    torch.manual_seed(0)
    generator = Generator((8, 8), features=6, label_widths=(8, 4), width=4, blocks=1)
    return attacks.ProSGAN(generator, PrototypeNet(3, BITS, 12, 6), **settings)


def iterative(**settings) -> dict:
    return {"epsilon": EPSILON, "steps": 20, "step": 50.0} | settings


ALL = {
    "noise": lambda: attacks.Noise(EPSILON),
    "p2p": lambda: attacks.p2p(codes(), **iterative()),
    "dhta": lambda: attacks.dhta(codes(), **iterative()),
    "toward prototype": lambda: attacks.toward_prototype(PrototypeNet(3, BITS, 12, 6), **iterative()),
    "prosgan": prosgan,
    "projected": lambda: prosgan(epsilon=EPSILON),
}
BOUNDED = [name for name in ALL if name != "prosgan"]
every = pytest.mark.parametrize("name", ALL)


@every
def test_results_are_images_without_gradients(name, victim, images, aims):
    made = ALL[name]()(victim, images, aims)
    assert made.shape == images.shape
    assert made.min() >= 0
    assert made.max() <= 1
    assert not made.requires_grad
    assert (made - images).abs().max() > 0.01


@pytest.mark.parametrize("name", BOUNDED)
def test_no_pixel_changes_by_more_than_epsilon(name, victim, images, aims):
    images = images.round()  # at both ends of the range, where clipping bites
    made = ALL[name]()(victim, images, aims)
    assert (made - images).abs().max() <= EPSILON + 1e-6


@every
def test_an_image_is_attacked_the_same_in_any_batch(name, victim, images, aims):
    attack = ALL[name]()
    parts = [attack(victim, images[part], aims[part]) for part in (slice(0, 1), slice(1, 6))]
    torch.testing.assert_close(torch.cat(parts), attack(victim, images, aims), rtol=0, atol=1e-5)


@every
def test_the_victim_is_left_as_it_was(name, victim, images, aims):
    victim.net[1].eval()
    victim.net[5].bias.requires_grad_(False)
    before = {key: value.clone() for key, value in victim.state_dict().items()}
    ALL[name]()(victim, images, aims)
    assert victim.training
    assert not victim.net[1].training
    assert [p.requires_grad for p in victim.parameters()] == [True] * 5 + [False]
    assert all(p.grad is None for p in victim.parameters())
    assert all(torch.equal(before[key], value) for key, value in victim.state_dict().items())


def test_steps_bring_the_code_nearer_to_the_anchor(victim, images, aims):
    victim.eval()
    attack = attacks.dhta(codes(), **iterative())
    aim = attack.aim(aims)
    with torch.no_grad():
        before, after = ((victim(x) * aim).mean() for x in (images, attack(victim, images, aims)))
        noise = (victim(attacks.Noise(EPSILON)(victim, images, aims)) * aim).mean()
    assert after > before + 0.1
    assert abs(noise - before) < 0.1


def test_the_sum_form_with_a_smaller_step_is_the_official_mean_form(victim, images, aims):
    ours = attacks.dhta(codes(), **iterative(step=50 / 6))
    official = attacks.dhta(codes(), **iterative(step=50.0, batch_mean=True))
    torch.testing.assert_close(ours(victim, images, aims), official(victim, images, aims), rtol=0, atol=1e-6)
    alone = official(victim, images[:1], aims[:1])
    assert (alone - official(victim, images, aims)[:1]).abs().max() > 1e-3, (
        "the mean form depends on the batch"
    )


def test_p2p_is_dhta_with_one_voter(aims):
    first = codes()[aims.picks[:, 0]]
    assert torch.equal(attacks.p2p(codes()).aim(aims), first)
    assert torch.equal(attacks.dhta(codes()).aim(aims), codes()[aims.picks].sum(1).sign())


def test_the_vote_is_nearest_to_its_voters_on_average():
    voters = torch.randn(1, 9, 5, generator=torch.Generator().manual_seed(0)).sign()
    candidates = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 5)
    agreement = (candidates[:, None] * voters).sum((1, 2))
    assert torch.equal(attacks.vote(voters)[0], candidates[agreement.argmax()])


@pytest.mark.parametrize("name", BOUNDED)
def test_epsilon_zero_changes_nothing(name, victim, images, aims):
    makers = {
        "noise": lambda: attacks.Noise(0),
        "p2p": lambda: attacks.p2p(codes(), epsilon=0),
        "dhta": lambda: attacks.dhta(codes(), epsilon=0),
        "toward prototype": lambda: attacks.toward_prototype(PrototypeNet(3, BITS, 12, 6), epsilon=0),
        "projected": lambda: prosgan(epsilon=0),
    }
    made = makers[name]()(victim, images, aims)
    assert torch.equal(made, images)
    assert made.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, 8, math.nan])
def test_an_impossible_epsilon_is_refused(epsilon):
    for make in (attacks.Noise, lambda e: attacks.dhta(codes(), epsilon=e), lambda e: prosgan(epsilon=e)):
        with pytest.raises(InputError, match=f"epsilon is {epsilon}"):
            make(epsilon)


@pytest.mark.parametrize("settings", [{"steps": -1}, {"step": 0}, {"step": math.nan}])
def test_impossible_steps_are_refused(settings):
    with pytest.raises(InputError, match="expected at least 0, and above 0"):
        attacks.dhta(codes(), **settings)


@every
def test_images_and_targets_that_do_not_fit_are_refused(name, victim, images, aims):
    attack = ALL[name]()
    for count, given in ((6, 5), (0, 0)):
        with pytest.raises(InputError, match=rf"\({count}, 3, 8, 8\) and {given} targets"):
            attack(victim, images[:count], aims[:given])
    for bad in (2 * images - 1, (255 * images).byte(), images * math.nan):
        with pytest.raises(InputError, match=r"not all in \[0, 1\]"):
            attack(victim, bad, aims)


def test_a_label_that_the_database_lacks_can_be_attacked_by_its_prototype_alone(victim, images):
    unseen = targets.unseen(torch.tensor([[1.0, 1, 0]]).repeat(6, 1))
    assert prosgan()(victim, images, unseen).shape == images.shape
    for attack in (attacks.dhta(codes()), attacks.p2p(codes())):
        with pytest.raises(InputError, match=r"the targets carry 0 database images each, .* 1"):
            attack(victim, images, unseen)


def test_codes_of_another_database_are_refused(victim, images, aims):
    with pytest.raises(InputError, match="of the database, but there are 2 codes"):
        attacks.dhta(codes()[:2])(victim, images, aims)


def test_projection_is_the_nearest_image_within_the_ball_and_has_gradients():
    images = torch.tensor([0.0, 0.5, 0.5, 1.0])
    attacking = torch.tensor([1.0, 0.52, 0.0, 1.0], requires_grad=True)
    made = attacks.project(attacking, images, 0.1)
    torch.testing.assert_close(made.detach(), torch.tensor([0.1, 0.52, 0.4, 1.0]))
    made.sum().backward()
    assert attacking.grad[:3].tolist() == [0, 1, 0]


def test_prosgan_is_one_pass_of_its_networks(victim, images, aims):
    attack = prosgan()
    with torch.no_grad():
        feature = attack.prototype_net(aims.labels).feature
        expected = (attack.generator(2 * images - 1, feature) + 1) / 2
    torch.testing.assert_close(attack(victim, images, aims), expected, rtol=0, atol=1e-5)


def test_each_label_of_a_batch_is_decoded_once(victim, images, monkeypatch):
    attack, decoded = prosgan(), []
    label_map = attack.generator.label_map
    monkeypatch.setattr(
        attack.generator, "label_map", lambda feature: decoded.append(len(feature)) or label_map(feature)
    )
    attack(victim, images, targets.unseen(torch.eye(3)[[0, 1, 0, 1, 0, 1]]))
    assert decoded == [2]


def test_a_victim_need_not_be_a_module(images, aims):
    weight = torch.randn(192, BITS, generator=torch.Generator().manual_seed(0))
    made = attacks.dhta(codes(), **iterative())(
        lambda x, alpha=1.0: torch.tanh(alpha * x.flatten(1) @ weight), images, aims
    )
    assert (made - images).abs().max() > 0
