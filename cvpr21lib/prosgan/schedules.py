"""Learning rates of the three stages (official code), as factors of the first one, for `LambdaLR`."""

from __future__ import annotations


def hash_net(epoch: int, epochs: int = 100) -> float:
    """Tenfold drops, from epochs 34 and 67 of 100 (0-based).

    The official code sets the rate after an epoch, by that epoch's number, so a drop comes one epoch late.
    """
    return 0.1 ** max(0, (epoch - 1) // max(1, epochs // 3))


def prototype_net(step: int, steps: int = 30_000) -> float:
    """Tenfold drops after a half and three quarters of the steps."""
    return 0.1 ** sum(step >= steps * share for share in (0.5, 0.75))


def gan(epoch: int, constant: int = 50, decaying: int = 50) -> float:
    """1 for `constant` epochs, then down in equal steps; it would reach 0 after `decaying` + 1 of them."""
    return 1 - max(0, epoch + 1 - constant) / (decaying + 1)
