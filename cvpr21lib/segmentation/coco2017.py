"""COCO 2017 with its panoptic annotations, laid out by `data_scripts.coco_panoptic`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import coco
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.panoptic import Category, ImageId

STUFF = {
    92: "banner", 93: "blanket", 95: "bridge", 100: "cardboard", 107: "counter", 109: "curtain",
    112: "door-stuff", 118: "floor-wood", 119: "flower", 122: "fruit", 125: "gravel", 128: "house",
    130: "light", 133: "mirror-stuff", 138: "net", 141: "pillow", 144: "platform", 145: "playingfield",
    147: "railroad", 148: "river", 149: "road", 151: "roof", 154: "sand", 155: "sea", 156: "shelf",
    159: "snow", 161: "stairs", 166: "tent", 168: "towel", 171: "wall-brick", 175: "wall-stone",
    176: "wall-tile", 177: "wall-wood", 178: "water-other", 180: "window-blind", 181: "window-other",
    184: "tree-merged", 185: "fence-merged", 186: "ceiling-merged", 187: "sky-other-merged",
    188: "cabinet-merged", 189: "table-merged", 190: "floor-other-merged", 191: "pavement-merged",
    192: "mountain-merged", 193: "grass-merged", 194: "dirt-merged", 195: "paper-merged",
    196: "food-other-merged", 197: "building-other-merged", 198: "rock-merged", 199: "wall-other-merged",
    200: "rug-merged",
}  # fmt: skip
"""The 53 kinds of stuff in COCO's panoptic annotations, by their numbers."""

CATEGORIES: Mapping[int, Category] = {
    **{number: Category(name, True) for number, name in coco.CATEGORIES.items()},
    **{number: Category(name, False) for number, name in STUFF.items()},
}
"""All 133: 80 things, then the stuff."""


class ImageFile(NamedTuple):
    """One image that a JSON file lists."""

    id: ImageId
    file_name: str
    """Without folder."""
    size: tuple[int, int]
    """Height and width in pixels."""

    @property
    def png(self) -> str:
        """The name of what belongs to it: labels, or a prediction."""
        return f"{Path(self.file_name).stem}.png"


@dataclass(frozen=True)
class COCO2017:
    """Splits: train (118,287 images) and val (5,000)."""

    root: Path

    folder: ClassVar[str] = "COCO2017"
    """Its folder below the data root."""
    script: ClassVar[str] = "coco_panoptic"
    """Who brings it: `python -m data_scripts.<script>`."""

    def images(self, split: str) -> Path:
        return self.root / f"{split}2017"

    def instances(self, split: str) -> Path:
        """Things, as COCO gives them."""
        return self.root / "annotations" / f"instances_{split}2017.json"

    def panoptic(self, split: str) -> Path:
        """The JSON; its PNGs lie in the folder of the same name."""
        return self.root / "annotations" / f"panoptic_{split}2017.json"

    def open_set(self, k: int) -> Path:
        """What is known of the training images when K % of the things are unknown (`cvpr21lib.eopsn`)."""
        return self.root / "splits" / f"K{k}"

    def known_instances(self, k: int) -> Path:
        """COCO's format, without crowds and unknown things. Written last: where it is, the split is whole."""
        return self.open_set(k) / "instances.json"

    def semantic(self, k: int) -> Path:
        """The folder of 8-bit PNGs: 0 known things, 1 .. 53 stuff, 255 void."""
        return self.open_set(k) / "semantic"

    @classmethod
    def find(cls, data_root: str | Path | None, k: int) -> Self:
        """The data set below, or at, `data_root`, with the split for this K.

        Raises:
            InputError: it is not there, or its preparation is not finished.
        """
        remedy = f"Bring it with `python -m data_scripts.{cls.script} --root {data_root or 'data'}`."
        if data_root is None:
            raise InputError(f"data_root is not set: name the folder that holds {cls.folder}. {remedy}")
        below, at = cls(Path(data_root) / cls.folder), cls(Path(data_root))
        for place in (below, at):
            if place.known_instances(k).is_file():
                return place
        if below.root.is_dir():
            raise InputError(
                f"{below.root} is there but not prepared for K = {k}: {below.known_instances(k)} is missing. "
                f"{remedy}"
            )
        raise InputError(
            f"The data set {cls.folder} was not found; looked in {below.root}, {at.root}. {remedy}"
        )

    def require(self, folder: Path, names: list[str], what: str) -> None:
        """Raises InputError that names the files that are missing in `folder`."""
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{len(missing):,} of {len(names):,} {what} are missing in {folder}: {some(missing)}. "
                f"Run `python -m data_scripts.{self.script} --root {self.root.parent}` again."
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of COCO's; `InputError` if it is missing, damaged, or another thing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"The annotations {path} do not exist; fetch or make them again.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged or cut short ({error}); fetch or make it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not in COCO's format; expected an object with images.")
    return content


def listed(path: Path, content: Mapping[str, Any]) -> list[ImageFile]:
    """The images that the `content` of a JSON file lists, in its order.

    Raises:
        InputError: an entry that is none, two images with the same id, a name with a folder, or two whose
            PNGs would have the same name.
    """
    try:
        images = [
            ImageFile(one["id"], str(one["file_name"]), (int(one["height"]), int(one["width"])))
            for one in content["images"]
        ]
        ids, names = Counter(one.id for one in images), Counter(one.png for one in images)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not list images in COCO's format ({error!r}).") from error
    for what, twice in (("id", _repeated(ids)), ("PNG", _repeated(names))):
        if twice:
            raise InputError(
                f"{path} has two images with the same {what}: {some(twice)}; remove or rename one of them."
            )
    for one in images:
        if one.file_name != Path(one.file_name).name or "\\" in one.file_name:
            raise InputError(f"{path}: the file of image {one.id} is {one.file_name!r}; expected no folder.")
    return images


def _repeated(counts: Counter[Any]) -> list[str]:
    return [str(key) for key, times in counts.items() if times > 1]
