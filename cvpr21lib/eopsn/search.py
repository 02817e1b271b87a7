"""What EOPSN has found and remembers while it trains, kept with the networks: a run can be continued."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cvpr21lib.eopsn.clustering import Discovery, Rules, Selection, discover
from cvpr21lib.eopsn.config import Config
from cvpr21lib.eopsn.memory import Memory, Remembered
from cvpr21lib.eopsn.model import Objects, Size
from cvpr21lib.eopsn.pseudo_truth import PseudoTruth, absolute


class Search(nn.Module):
    """What EOPSN has found and remembers; kept with the networks, so that a run can be continued.

    `rounds` are the clusterings of the run, for pictures: what was clustered, and what came of it.
    """

    def __init__(self, images: Sequence[str | int], rules: Rules, memory: Memory) -> None:
        super().__init__()
        self.rules, self.memory = rules, memory
        self.table = PseudoTruth(images)
        self.rounds: list[dict[str, Any]] = []

    def pseudo(self, place: int, size: Size, flipped: bool, config: Config) -> Objects:
        """The pseudo ground truth of one image, as the network of this `config` takes it at this `size`."""
        rows = self.table.of(place)
        return Objects(absolute(rows.box, size, flipped), config.first_unknown + rows.label)

    def cluster(self, step: int, selection: Selection) -> None:
        """Look for new classes, and forget."""
        content = self.memory.content()
        found = discover(
            content, self.rules, classes=self.table.classes, pseudo_boxes=len(self.table), selection=selection
        )
        if found is not None and content is not None:
            self.table.add(found.rows)
            self.rounds.append(_round(step, content, found))
        self.memory.clear()

    def get_extra_state(self) -> Tensor:
        """Everything, as bytes, since what a run leaves behind holds tensors only."""
        state = {name: getattr(self, name).state_dict() for name in ("rules", "memory", "table")}
        file = io.BytesIO()
        torch.save({**state, "rounds": self.rounds}, file)
        return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        kept = torch.load(io.BytesIO(state.cpu().numpy().tobytes()), weights_only=True)
        for name in ("rules", "memory", "table"):
            getattr(self, name).load_state_dict(kept[name])
        self.rounds = kept["rounds"]


def _round(step: int, content: Remembered, found: Discovery) -> dict[str, Any]:
    return {
        "step": step,
        "features": content.features,
        "objectness": content.objectness,
        "image": content.image,
        "box": content.box,
        "cluster": found.clusters.assignment,
        "selected": found.selected,
        "exemplars": found.exemplars,
    }
