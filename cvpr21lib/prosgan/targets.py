"""Whom the queries should be mistaken for: one list of target labels, drawn once and used for every attack.

The official programs draw different lists for different attacks (any label of the database for ProS-GAN, only
frequent ones for DHTA), which makes their scores incomparable. Here the stricter rule is everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cvpr21lib.errors import InputError


@dataclass(frozen=True)
class Targets:
    """For each of Q queries a label, and database images that carry it. A slice is the targets of a batch."""

    numbers: Tensor
    """(Q,) place in the whole list; what an attack draws at random depends on it, never on the batch."""
    labels: Tensor
    """(Q, C) target label vectors y_t, of 0 and 1, none of them empty."""
    picks: Tensor
    """(Q, n_t) rows of database images whose label vector is exactly y_t, drawn with replacement."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice | Tensor) -> Targets:
        return Targets(self.numbers[part], self.labels[part], self.picks[part])

    def to(self, device: torch.device | str) -> Targets:
        return Targets(self.numbers.to(device), self.labels.to(device), self.picks.to(device))


def draw(labels: Tensor, queries: int, seed: int, n_t: int = 9) -> Targets:
    """Targets for so many queries, by the rule of the official DHTA: uniform over the distinct label vectors
    that more than `n_t` of the database's `labels` (N, C) equal; empty ones are left out (ours).

    The same arguments give the same list. Raises `InputError` where no label is frequent enough.
    """
    distinct, counts = _checked(labels).cpu().unique(dim=0, return_counts=True)
    eligible = distinct[(counts > n_t) & (distinct != 0).any(1)]
    if not len(eligible):
        raise InputError(
            f"no label vector occurs more than {n_t} times in the database of {len(labels)} images (at most "
            f"{int(counts.max()) if len(counts) else 0}); lower n_t, or take a larger database."
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = eligible[torch.randint(len(eligible), (queries,), generator=generator)]
    return _with_picks(chosen, labels.cpu(), n_t, generator)


def toward(targets: Tensor, labels: Tensor, seed: int, n_t: int = 9) -> Targets:
    """Targets for chosen label vectors `targets` (Q, C), with images of the database's `labels` (N, C).

    Raises `InputError` for an empty label vector, to which no image is similar, and for one that no database
    image carries: no code stands for it. (A PrototypeNet needs no such image: see `unseen`.)
    """
    return _with_picks(
        _checked(targets).cpu(), _checked(labels).cpu(), n_t, torch.Generator().manual_seed(seed)
    )


def unseen(targets: Tensor) -> Targets:
    """Targets without database images, for ProS-GAN alone: any label vectors (Q, C) but empty ones."""
    _refuse_empty(_checked(targets))
    none = torch.empty(len(targets), 0, dtype=torch.int64, device=targets.device)
    return Targets(torch.arange(len(targets), device=targets.device), targets, none)


def _with_picks(chosen: Tensor, labels: Tensor, n_t: int, generator: torch.Generator) -> Targets:
    if n_t < 1:
        raise InputError(f"n_t is {n_t}; an anchor code is voted for by at least 1 image.")
    _refuse_empty(chosen)
    if chosen.shape[1] != labels.shape[1]:
        raise InputError(f"targets have {chosen.shape[1]} classes, but the database {labels.shape[1]}.")
    chosen = chosen.to(labels.dtype)
    rows = {key: (labels == key_label).all(1).nonzero()[:, 0] for key, key_label in _by_value(chosen).items()}
    picks = []
    for target in chosen:
        members = rows[tuple(target.tolist())]
        if not len(members):
            present = target.nonzero()[:, 0].tolist()
            raise InputError(
                f"no database image carries exactly the labels {present}; choose a label vector that occurs, "
                "or attack by the prototype code, which needs none (targets.unseen)."
            )
        picks.append(members[torch.randint(len(members), (n_t,), generator=generator)])
    empty = torch.empty(0, n_t, dtype=torch.int64)
    return Targets(torch.arange(len(chosen)), chosen, torch.stack(picks) if picks else empty)


def _by_value(labels: Tensor) -> dict[tuple[float, ...], Tensor]:
    return {tuple(label.tolist()): label for label in labels.unique(dim=0)}


def _checked(labels: Tensor) -> Tensor:
    if labels.ndim != 2 or not ((labels == 0) | (labels == 1)).all():
        raise InputError(f"labels of the shape {tuple(labels.shape)}; expected vectors (N, C) of 0 and 1.")
    return labels


def _refuse_empty(targets: Tensor) -> None:
    empty = (targets == 0).all(1).nonzero()[:, 0]
    if len(empty):
        raise InputError(
            f"target {int(empty[0])} is an empty label vector: no image is similar to it, so no attack can "
            "reach it (its t-AP is 0); choose at least one label."
        )
