"""EOPSN's step on the whole network, on one device or many (section 3).

    learn      losses of a batch and an exemplar image; what they saw of void is mined and remembered
    OpenSet    what was found and is remembered, the same on every device

A batch is what one device computes at a time: the official code's devices have 4 images each, and for each
such batch it appends one exemplar image, and remembers 20 proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cvpr21lib.eopsn import processes
from cvpr21lib.eopsn.clustering import Rules, Selection, discover
from cvpr21lib.eopsn.data import Example, Examples
from cvpr21lib.eopsn.memory import Memory, Remembered, VoidProposals
from cvpr21lib.eopsn.mining import mine
from cvpr21lib.eopsn.model import Maps, Objects, PanopticFPN
from cvpr21lib.eopsn.pseudo_truth import Rows, gathered, no_rows
from cvpr21lib.eopsn.search import Search
from cvpr21lib.sampling import mix


def learn(
    network: nn.Module,
    search: OpenSet,
    examples: Examples,
    another: Callable[[int], Example],
    mining: bool = True,
) -> dict[str, Tensor]:
    """The losses of a batch. Every process calls it together, as what they find is shared.

    Args:
        network: a `PanopticFPN`, perhaps as Fabric has wrapped it.
        another: the training image at a place in the list, to be appended for its exemplars.
        mining: whether proposals like an exemplar join it.
    """
    net = getattr(network, "module", network)
    assert isinstance(net, PanopticFPN)
    device = examples.batch.images.device
    net.class_weight.copy_(search.table.class_weight(net.config.known, net.config.unknown))
    appended = search.table.another_image(examples.places)
    seen = examples if appended is None else examples.plus(another(appended))
    pseudo = [
        Objects(*(column.to(device) for column in search.pseudo(place, size, flipped, net.config)))
        for place, size, flipped in zip(seen.places, seen.batch.sizes, seen.flipped, strict=True)
    ]
    with _kept(net.trunk) as maps:
        found = network(seen.batch, AsIs(seen.truths), AsIs(pseudo))

    void = [
        VoidProposals(place, each.boxes, each.objectness, each.features.float(), size, flipped)
        for place, each, size, flipped in zip(
            examples.places, found.void, examples.batch.sizes, examples.flipped, strict=False
        )
    ]
    new = no_rows()
    mined = [torch.full((len(each.boxes),), -1, device=device) for each in void]
    if appended is not None and mining:
        features = _features(net, {level: values[-1:] for level, values in maps.items()}, pseudo[-1].boxes)
        labels = search.table.of(appended).label.to(device)
        new, mined = mine(features, labels, void, search.rules, search.table.merged)
    search.share(new, device)
    search.memory.collect(void, mined)
    return found.losses


class OpenSet(Search):
    """What EOPSN has found and remembers, the same in every process: so a checkpoint of one process is whole.

    The official code shares every 100 steps what its processes found; here they share at once, and every
    `COUNTED` steps the count of boxes is taken by which thresholds change.

    Args:
        images: the ids of the training images.
        sample: void proposals remembered of each batch.
        seed: of the points at which k-means starts.
        official: as of `PseudoTruth` and `Memory`.
    """

    COUNTED = 100

    def __init__(
        self, images: Sequence[str | int], rules: Rules, sample: int, seed: int = 0, official: bool = False
    ) -> None:
        super().__init__(images, rules, SharedMemory(sample, official=official))
        self.table.official = official
        self.seed = seed
        self._step: int | None = None

    def begin(self, step: int, interval: int, selection: Selection, device: torch.device) -> None:
        """Look for new classes if this step, of which several batches may be parts, is the first after
        `interval` others."""
        if step == self._step:
            return
        self._step = step
        if step and step % interval == 0:
            self._look(step, selection, device)
        if step % self.COUNTED == 0:
            self.table.merged = len(self.table)

    def share(self, new: Rows, device: torch.device) -> None:
        """Add to the table what each process has found, in order of rank."""
        run, new = processes.of_run(device), new._replace(box=new.box.float())
        self.table.add(Rows(*(gathered(run, column.to(device)) for column in new)))

    def _look(self, step: int, selection: Selection, device: torch.device) -> None:
        """One process clusters: on GPUs, two might come to different sums."""
        content, rows = self.memory.content(), no_rows()
        if content is not None and processes.of_run(device).global_rank == 0:
            found = discover(
                Remembered(*(column.to(device) for column in content)),
                self.rules,
                classes=self.table.classes,
                pseudo_boxes=self.table.merged,
                selection=selection,
                generator=torch.Generator().manual_seed(mix(self.seed, "clusters", step)),
            )
            rows = rows if found is None else found.rows
        self.share(rows, device)
        self.table.merged = len(self.table)
        self.memory.clear()


class SharedMemory(Memory):
    """A memory of what all processes remember, on the CPU."""

    def collect(
        self,
        images: Sequence[VoidProposals],
        mined: Sequence[Tensor],
        generator: torch.Generator | None = None,
    ) -> None:
        own = Memory(self.sample, self.min_area, self.official)
        own.collect(images, mined, generator)
        there = own.content(processes.of_run(images[0].boxes.device))
        if there is not None:
            self._parts.append(Remembered(*(column.cpu() for column in there)))


class AsIs:
    """A list that Fabric does not look into: for mixed precision, it would round boxes to 8 bits."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@contextmanager
def _kept(trunk: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The maps that the trunk makes within the block, without gradients."""
    maps: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Maps) -> None:
        maps.update({level: values.detach() for level, values in output.items()})

    handle = trunk.register_forward_hook(keep)
    try:
        yield maps
    finally:
        handle.remove()


@torch.no_grad()
def _features(net: PanopticFPN, maps: Maps, boxes: Tensor) -> Tensor:
    """Of the boxes (n, 4) of one image, (n, D)."""
    made, own = next(iter(maps.values())).dtype, net.box_head.cls_score.weight.dtype
    with torch.autocast(boxes.device.type, made, enabled=made != own):
        return net.box_output(maps, [boxes]).features.float()
