"""ProS-GAN against numbers made by the official code (xunguangwang/ProS-GAN) on a CPU in float32."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpr21lib.prosgan import attacks, hashing, losses, schedules
from cvpr21lib.prosgan.discriminator import Discriminator
from cvpr21lib.prosgan.generator import Generator
from cvpr21lib.prosgan.prototype import Prototype, PrototypeNet
from cvpr21lib.prosgan.targets import Targets
from cvpr21lib.prosgan.victims import Victim, preprocess
from tests.parity.official import Official

torch.set_num_threads(1)


class Fixture(Official):
    paper = "prosgan"


def uniform(name: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The fixtures' rule for numbers in [-0.5, 0.5) that need not be stored: a hash of the position."""
    start = (zlib.crc32(name.encode()) + 97 * seed) % 2**32
    x = np.arange(int(np.prod(shape)), dtype=np.uint32)
    x *= np.uint32(2654435761)  # modulo 2^32 by itself
    x += np.uint32(start)
    for _ in range(2):
        x ^= x >> 16
        x *= np.uint32(0x45D9F3B)
    x ^= x >> 16
    return (x / 2**32 - 0.5).reshape(shape)


def filled(name: str, seed: int, shape: tuple[int, ...], gain: float) -> Tensor:
    u, last = uniform(name, seed, shape), name.rsplit(".", 1)[-1]
    if last in ("weight_u", "weight_v"):
        values = u
    elif last == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    elif last == "running_var" or (len(shape) == 1 and last == "weight"):
        values = 1 + 0.2 * u
    elif last in ("running_mean", "bias"):
        values = 0.1 * u
    else:
        values = u * 2 * np.sqrt(3) * gain / np.sqrt(u.size / shape[0])
    return torch.from_numpy(values.astype(np.float32))


def fill(module: nn.Module, fixture: Fixture, official=lambda name: name) -> None:
    """Give every parameter and buffer its numbers, by the name that the official network has for it."""
    for name, value in module.state_dict().items():
        value.copy_(filled(official(name), fixture.meta["seed"], tuple(value.shape), fixture.meta["gain"]))


def images(fixture: Fixture, count: int) -> Tensor:
    u = uniform("image", fixture.meta["input_seed"], (count, 3, 224, 224))
    return torch.from_numpy((u + 0.5).astype(np.float32))


def test_the_rule_of_the_fixtures():
    expected = [0.01892051, 0.37094105, 0.30065823]
    np.testing.assert_allclose(uniform("image", 0, (3,)) + 0.5, expected, atol=1e-8)


# --- victims ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["DPSH", "DPH", "HashNet"])
def test_six_epochs_of_the_official_hashing(method):
    fixture = Fixture(f"hashing_train_{method.lower()}")
    notes, x, labels = fixture.meta, fixture["in/x"], fixture["in/labels"]
    net = nn.Linear(notes["din"], notes["bit"])
    net.load_state_dict({name.removeprefix("fc."): value for name, value in fixture.group("sd/").items()})
    memory = hashing.Memory(notes["n"], notes["bit"])
    optimizer = torch.optim.SGD(net.parameters(), lr=notes["lr"], weight_decay=notes["wd"])
    printed = []
    for epoch in range(notes["epochs"]):
        total = 0.0
        for group in optimizer.param_groups:
            group["lr"] = notes["lr"] * schedules.hash_net(epoch, notes["epochs"])
        for batch in fixture["in/perms"][epoch].split(notes["batch"]):
            u = net(x[batch]).tanh()
            loss = hashing.LOSSES[method](u, memory.update(batch, u), labels[batch], labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        printed.append(total / len(fixture["in/perms"][epoch].split(notes["batch"])))
    for name, value in net.state_dict().items():
        fixture.expect(f"out/sd_after/fc.{name}", value, 1e-4, 1e-5)
    fixture.expect("out/printed_epoch_loss_5dec", torch.tensor(printed), 0, 2e-5)


def test_pairwise_losses():
    fixture = Fixture("ops")
    u, memory = fixture["in/u"].requires_grad_(), fixture["in/U"]
    y, labels = fixture["in/y"], fixture["in/Y"]
    loss = hashing.hashnet(u, memory, y, labels, fixture.meta["alpha"])
    loss.backward()
    fixture.expect("out/hashnet_loss", loss, 1e-5, 1e-6)
    fixture.expect("out/hashnet_grad_u", u.grad, 1e-5, 1e-7)
    s = hashing.similarity(y, labels)
    fixture.expect("out/sim01", s, 0, 0)
    fixture.expect("out/sim_pm1", 2 * s - 1, 0, 0)
    fixture.expect("out/log_trick", F.softplus(fixture["in/xs"]), 1e-5, 1e-7)


@pytest.mark.parametrize("backbone", ["AlexNet", "ResNet18", "VGG11"])
def test_backbones(backbone):
    fixture = Fixture("backbones")
    with torch.device("meta"):
        net = Victim(backbone, fixture.meta["bit"]).eval()
    net.to_empty(device="cpu")
    fill(net, fixture, lambda name: official_name(backbone, name.removeprefix("net.")))
    with torch.inference_mode():
        for alpha in (1, 0.1):
            out = net(images(fixture, 2), alpha)
            fixture.expect(f"out/{backbone}_alpha{alpha}", out, 1e-3, 1e-4)


def official_name(backbone: str, name: str) -> str:
    if backbone == "ResNet18":
        return name.replace("fc.", "hash_layer.")
    return name.replace("classifier.0.", "cl1.") if backbone == "VGG11" else name


def test_preprocessing():
    fixture = Fixture("preprocess")
    image = preprocess(fixture.arrays["in/image_u8"])
    assert image.shape == (3, 224, 224)
    fixture.expect("out/tensor_u8", (255 * image).round()[:, 3::6, 5::6], 0, 1)


# --- PrototypeNet -----------------------------------------------------------------------------------------


def test_prototype_net():
    fixture = Fixture("prototypenet_forward")
    net = PrototypeNet(fixture.meta["classes"], fixture.meta["bit"])
    fill(net, fixture)
    for key, value in zip("fhc", net(fixture["in/labels"]), strict=True):
        fixture.expect(f"out/{key}", value, 1e-4, 1e-5)


def test_twelve_steps_of_prototype_training():
    fixture = Fixture("prototypenet_train")
    notes = fixture.meta
    net = PrototypeNet(notes["classes"], notes["bit"])
    fill(net, fixture)
    optimizer = torch.optim.Adam(net.parameters(), lr=notes["lr"], betas=notes["betas"])
    steps = notes["epochs"] * notes["steps"]
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedules.prototype_net(step, steps)
    )
    labels, codes, printed = fixture["in/labels"], fixture["in/B"], fixture["out/printed_lr_log_reg_l2"]
    for step, picks in enumerate(fixture["in/target_picks"]):
        y = fixture["in/target_labels"][picks]
        made = net(y)
        loss = losses.prototype(made, y, codes, labels)
        assert scheduler.get_last_lr()[0] == pytest.approx(printed[step, 0].item(), abs=5e-6)
        assert loss.item() == pytest.approx(printed[step, 1:].sum().item(), abs=2e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        made = net(fixture["in/target_labels"])
    fixture.expect("out/f_after", made.feature[:, ::7], 1e-4, 1e-4)
    fixture.expect("out/h_after", made.output, 1e-4, 1e-4)
    fixture.expect("out/c_after", made.label, 1e-4, 1e-4)
    fixture.expect("out/hashing_weight_after", net.hashing[0].weight, 1e-4, 1e-5)
    fixture.expect("out/feature0_bias_after", net.feature[0].bias, 1e-4, 1e-5)


# --- generator and discriminator --------------------------------------------------------------------------


def test_generator():
    fixture = Fixture("generator")
    net = Generator()
    fill(net, fixture)
    feature = torch.from_numpy(
        (2 * uniform("feature", fixture.meta["input_seed"], (2, 512))).astype(np.float32)
    )
    image = 2 * images(fixture, 2) - 1
    with torch.inference_mode():
        label_map = net.label_map(feature)
        made = net(image, feature)
        assert torch.equal(made, net.with_map(image, label_map))
    fixture.expect("out/mixed_sub", label_map[:, :, ::8, ::8], 0, 2e-3)
    fixture.expect("out/adv_sub", made[:, :, 1::8, 2::8], 0, 2e-3)
    for key, value in {"adv": made, "label_map": label_map}.items():
        flat = value.double().flatten(1)
        moments = torch.stack([flat.mean(1), flat.std(1, correction=0)], 1)
        fixture.expect(f"out/{key}_mean_std", moments, 0, 1e-4)


def small_discriminator(fixture: Fixture, size: int, prefix: str) -> Discriminator:
    net = Discriminator(fixture.meta["classes"], (size, size), widths=(4, 8, 16))
    net.load_state_dict(fixture.group(prefix))
    return net


def test_discriminator_over_three_forwards():
    fixture = Fixture("discriminator_small")
    net = small_discriminator(fixture, fixture.meta["image_size"], "sd/")
    x, labels = fixture["in/x"], fixture["in/labels"]
    fixture.expect("out/target_real", losses.expected(labels, made=False), 0, 0)
    fixture.expect("out/target_fake", losses.expected(labels, made=True), 0, 0)

    scores = net(x)
    real = losses.adversarial(scores, labels)
    fake = F.mse_loss(scores, losses.expected(labels, made=True))
    real.backward()
    fixture.expect("out/logits1", scores, 1e-4, 1e-5)
    fixture.expect("out/loss_real", real, 1e-4, 1e-5)
    fixture.expect("out/loss_fake", fake, 1e-4, 1e-5)
    half = losses.discriminator(scores, labels, scores, labels)
    assert half.item() == pytest.approx((real + fake).item() / 2)
    fixture.expect("out/grad_main0_bar", net.main[0].weight_bar.grad, 1e-4, 1e-5)
    fixture.expect("out/grad_fc", net.fc.weight.grad, 1e-4, 1e-5)
    fixture.expect("out/u_main2_after1", net.main[2].weight_u, 1e-4, 1e-5)
    with torch.no_grad():
        fixture.expect("out/logits2", net(x), 1e-4, 1e-5)
        fixture.expect("out/logits3_eval", net.eval()(x), 1e-4, 1e-5)
        fixture.expect("out/logits_single", net(x[:1])[0], 1e-4, 1e-5)


def test_full_discriminator():
    fixture = Fixture("discriminator_full")
    net = Discriminator(fixture.meta["classes"])
    fill(net, fixture)
    x = 2 * images(fixture, 2) - 1
    with torch.inference_mode():
        for number in (1, 2):
            fixture.expect(f"out/logits{number}", net(x), 1e-3, 1e-4)


class StandInGenerator(nn.Module):
    """The fixture's: two convolutions, the label as three constant maps."""

    def __init__(self) -> None:
        super().__init__()
        self.lab, self.c1 = nn.Linear(16, 3), nn.Conv2d(6, 8, 3, padding=1)
        self.c2 = nn.Conv2d(11, 3, 3, padding=1, bias=False)

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        maps = self.lab(feature)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.c2(torch.cat([self.c1(torch.cat([maps, x], 1)).relu(), x], 1)).tanh()


def test_three_epochs_of_adversarial_training():
    fixture = Fixture("gan_train")
    notes, state = fixture.meta, fixture.group("sd/")
    generator = StandInGenerator()
    generator.load_state_dict(fixture.group("sd/generator/"))
    critic = small_discriminator(fixture, notes["hw"], "sd/discriminator/")
    victim = nn.Linear(3 * notes["hw"] ** 2, notes["bit"]).requires_grad_(False)
    victim.load_state_dict({name: state[f"hashing_model/fc.{name}"] for name in ("weight", "bias")})

    def layer(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"prototype_net/{name}.weight"], state[f"prototype_net/{name}.bias"])

    def prototype(y: Tensor) -> Prototype:
        feature = layer("feature", y)
        return Prototype(
            feature, layer("hashing.0", feature).tanh(), layer("classifier.0", feature).sigmoid()
        )

    networks = {"generator": generator, "discriminator": critic}
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=notes["lr"], betas=notes["betas"])
        for name, network in networks.items()
    }
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: schedules.gan(epoch, notes["n_epochs"], notes["n_epochs_decay"])
        )
        for optimizer in optimizers.values()
    ]
    picks, printed = iter(fixture["in/target_picks"]), []
    for epoch in range(notes["epochs"]):
        for number, batch in enumerate(torch.arange(notes["n"]).split(notes["batch"])):
            target = fixture["in/target_labels"][torch.stack([next(picks) for _ in batch])]
            x, y = 2 * fixture["in/x01"][batch] - 1, fixture["in/labels"][batch]
            aim = prototype(target)
            fake = generator(x, aim.feature)
            if number % losses.DISCRIMINATOR_EVERY == 0:
                l_d = losses.discriminator(critic(x), y, critic(fake.detach()), target)
                optimizers["discriminator"].zero_grad()
                l_d.backward()
                optimizers["discriminator"].step()
            l_gan = losses.adversarial(critic(fake), target)
            l_ham = losses.hamming(victim(((fake + 1) / 2).flatten(1)).tanh(), hashing.binary(aim.output))
            l_rec = losses.reconstruction(fake, x)
            optimizers["generator"].zero_grad()
            (losses.ADVERSARIAL * l_gan + losses.HAMMING * l_ham + notes["rec_w"] * l_rec).backward()
            optimizers["generator"].step()
            printed.append([loss.item() for loss in (l_gan, l_d, l_ham, l_rec)])
        rate = fixture["out/printed_lr_7dec"][epoch].item()
        assert schedulers[0].get_last_lr()[0] == pytest.approx(rate, abs=6e-8)
        for scheduler in schedulers:
            scheduler.step()
    fixture.expect("out/printed_gan_d_hash_rec", torch.tensor(printed), 0, 6e-4)
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            fixture.expect(f"out/sd_after/{name}/{key}", value, 1e-4, 1e-5)


# --- DHTA -------------------------------------------------------------------------------------------------


def test_anchor_codes():
    fixture = Fixture("dhta")
    fixture.expect("out/anchor", attacks.vote(fixture["in/codes"]), 0, 0)
    fixture.expect("out/anchor_first4", attacks.vote(fixture["in/codes"][:, :4]), 0, 0)


@pytest.mark.parametrize(("key", "steps"), [("adv_1", 1), ("adv_10", 10), ("adv_40", 40), ("adv_1_step1", 1)])
def test_dhta(key, steps):
    fixture = Fixture("dhta")
    net = nn.Linear(192, 12)
    net.load_state_dict({name.removeprefix("fc."): v for name, v in fixture.group("sd/").items()})
    queries, codes = fixture["in/queries"], fixture["in/codes"]
    rows = torch.arange(36).view(4, 9)
    targets = Targets(torch.arange(4), torch.ones(4, 1), rows)
    attack = attacks.dhta(
        codes.flatten(0, 1),
        epsilon=fixture.meta["eps"],
        steps=steps,
        step=1 if key.endswith("step1") else fixture.meta["step"],
        batch_mean=True,
    )
    adversarial = attack(lambda x, alpha=1.0: (alpha * net(x.flatten(1))).tanh(), queries, targets)
    fixture.expect(f"out/{key}", adversarial, 0, 1e-5)


def test_slopes():
    fixture = Fixture("dhta")
    slopes = [attacks.alpha(t) for t in fixture["in/alpha_n"].tolist()]
    fixture.expect("out/alpha", torch.tensor(slopes, dtype=torch.float64), 0, 1e-12)
