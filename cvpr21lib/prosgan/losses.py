"""Losses of ProS-GAN (sections 3.3 to 3.5), one pure function an equation, as the official code weighs them.

    PrototypeNet:   L_P = likelihood + reconstruction of the label + quantisation / 10^4
    generator:      L_G = w_rec L_rec + 5 L_ham + L_gan,  w_rec = 100 for FLICKR-25K, else 50
    discriminator:  L_D, at every third step

Images are in [-1, 1] here, x~ = 2 x - 1; `fake` is x~', the generator's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.prosgan.hashing import likelihood, similarity
from cvpr21lib.prosgan.prototype import Prototype

HAMMING, ADVERSARIAL = 5.0, 1.0
"""Official weights of L_ham and L_gan."""
RECONSTRUCTION = {"flickr25k": 100.0, "nus_wide": 50.0, "coco": 50.0}
"""Official weight of L_rec for each data set."""
QUANTISATION = 1e-4
"""Official weight of L_P's last term."""
DISCRIMINATOR_EVERY = 3
"""The discriminator learns in iterations 0, 3, 6, ... of each epoch, before the generator (official)."""


def prototype(made: Prototype, y: Tensor, codes: Tensor, labels: Tensor) -> Tensor:
    """L_P: the prototype agrees with the codes of similar images and not with those of others.

    likelihood(h, B, s) + mean (c - y)^2 + 10^-4 / M sum |sign(h) - h|^2.

    Args:
        made: of the M label vectors `y` (M, C), drawn from the distinct ones of the database.
        codes: B (N, K), the victim's codes of the training images.
        labels: theirs (N, C).
    """
    quantisation = (made.output.sign() - made.output).square().sum(1).mean()
    return (
        likelihood(made.output, codes, similarity(y, labels))
        + F.mse_loss(made.label, y)
        + QUANTISATION * quantisation
    )


def hamming(u: Tensor, code: Tensor) -> Tensor:
    """L_ham = 1 - mean u code, the victim's outputs (N, K) against the aims: 0 at best, 2 at worst."""
    return 1 - (u * code).mean()


def reconstruction(fake: Tensor, image: Tensor) -> Tensor:
    """L_rec: mean squared error of images in [-1, 1], four times that of images in [0, 1]."""
    return F.mse_loss(fake, image)


def adversarial(scores: Tensor, target: Tensor) -> Tensor:
    """L_gan: D's `scores` (N, C + 1) of fakes should be those of real images of the target labels (N, C)."""
    return F.mse_loss(scores, expected(target, made=False))


def discriminator(real: Tensor, y: Tensor, fake: Tensor, target: Tensor) -> Tensor:
    """L_D: half of the squared error of D's scores, `real` (N, C + 1) with labels y, `fake` with `target`."""
    return (F.mse_loss(real, expected(y, made=False)) + F.mse_loss(fake, expected(target, made=True))) / 2


def expected(labels: Tensor, made: bool) -> Tensor:
    """[y, 0] for real images and [y, 1] for made ones: (N, C) to (N, C + 1). Real is 0 (official)."""
    return torch.cat([labels, labels.new_full((len(labels), 1), float(made))], 1)
