"""All processes of a run, as Lightning's `Fabric` shows them, for a loss: it is not handed the run's own."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor


class Processes:
    """What `pseudo_truth.gathered` and the memory ask of Fabric."""

    def __init__(self, device: torch.device) -> None:
        several = dist.is_available() and dist.is_initialized()
        self.device = device
        self.world_size = dist.get_world_size() if several else 1
        self.global_rank = dist.get_rank() if several else 0

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, which have one shape, (world_size, ...)."""
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.stack(parts)


def of_run(device: torch.device) -> Fabric:
    """The processes that compute this run on `device` and its like; the one there is, outside of a run."""
    return cast(Fabric, Processes(device))
