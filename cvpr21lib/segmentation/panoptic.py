"""COCO's panoptic format: what every pixel is, and to which object it belongs.

An image is a coloured PNG, whose pixels are segment ids, R + 256 G + 65536 B, 0 for void; and an entry of a
JSON file, which lists these segments with their categories. Ground truth and predictions have the same
format; only ground truth lists images and categories, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import stored
from cvpr21lib.segmentation.layout import some

VOID = 0
"""The id of pixels that nobody labelled."""
MAX_ID = 2**24 - 1
"""The last id that three bytes hold."""

ImageId = int | str
"""COCO's are integers; other data sets number their images by name."""


class Segment(NamedTuple):
    """One object, or all of one kind of stuff, in one image."""

    id: int
    """From 1 to `MAX_ID`; only within its image is it unique."""
    category: int
    crowd: bool = False
    """Whether it stands for several objects that nobody told apart; in ground truth alone."""
    area: int | None = None
    """Its pixels as the JSON counts them; None where it does not."""


class Panoptic(NamedTuple):
    """One image's segmentation."""

    ids: np.ndarray
    """(H, W), integers: a segment's id at each pixel, or `VOID`."""
    segments: tuple[Segment, ...]


class Category(NamedTuple):
    """What a segment can be."""

    name: str
    isthing: bool
    """Whether it has countable objects; otherwise it is stuff."""


class Annotation(NamedTuple):
    """One image in the JSON."""

    file_name: str
    """Of the PNG, without folder."""
    segments: tuple[Segment, ...]
    size: tuple[int, int] | None = None
    """Height and width in pixels, where the JSON lists its images."""


@dataclass(frozen=True)
class Annotations:
    """What a JSON file holds."""

    path: Path
    images: Mapping[ImageId, Annotation]
    """In the file's order."""
    categories: Mapping[int, Category] = field(default_factory=dict)
    """By their numbers, which have gaps in COCO; none in predictions."""


def load(annotation: Annotation, folder: Path) -> Panoptic:
    """One image of a JSON file, with its PNG from `folder`.

    Raises:
        InputError: the PNG is missing, damaged, not coloured, or of another size than the JSON says.
    """
    path = folder / annotation.file_name
    ids = read_png(path)
    if annotation.size not in (None, ids.shape):
        height, width = annotation.size or (0, 0)
        raise InputError(
            f"{path} has {ids.shape[0]}×{ids.shape[1]} pixels and its JSON says {height}×{width}; expected "
            "the original size: fetch it again, or do not resize it."
        )
    return Panoptic(ids, annotation.segments)


def read_png(path: Path) -> np.ndarray:
    """The ids of a panoptic PNG, int32 (H, W)."""
    image = stored.decode(path)
    if image.mode not in ("RGB", "RGBA"):
        raise InputError(
            f"{path} has pixels of mode {image.mode!r}; a panoptic PNG is coloured (RGB), its ids are "
            "R + 256 G + 65536 B."
        )
    image = image if image.mode == "RGB" else image.convert("RGB")
    four_bytes = image.tobytes("raw", "RGBX")  # so that a pixel is one number
    numbers = np.frombuffer(four_bytes, "<u4").reshape(image.height, image.width)
    return (numbers & np.uint32(MAX_ID)).view("<i4")


def write_png(path: Path, ids: np.ndarray) -> None:
    """Write `ids`, integers (H, W) from 0 to `MAX_ID`, as a panoptic PNG: whole, or not at all."""
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 2:
        raise InputError(
            f"the ids for {path} are {ids.dtype} of shape {ids.shape}; expected integers (H, W)."
        )
    if ids.size and not (ids.min() >= 0 and ids.max() <= MAX_ID):
        raise InputError(
            f"the ids for {path} reach from {ids.min()} to {ids.max()}; a PNG holds 0 to {MAX_ID}."
        )
    channels = ids[..., None].astype("<u4").view(np.uint8)[..., :3]
    with atomic.write(path) as temporary:
        Image.fromarray(channels).save(temporary, "PNG")


def read_json(path: Path) -> Annotations:
    """The annotations of ground truth or of predictions.

    Raises:
        InputError: no such file, a damaged one, two images, or two segments of an image, with the same id,
            a category that the file does not list (if it lists any), or a PNG outside the folder.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"The annotations {path} do not exist; fetch or make them again.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged or cut short ({error}); fetch or make it again.") from error
    try:
        categories = {
            int(one["id"]): Category(str(one["name"]), bool(one["isthing"]))
            for one in content.get("categories", ())
        }
        sizes = {one["id"]: (int(one["height"]), int(one["width"])) for one in content.get("images", ())}
        images = [
            (_image_id(one), Annotation(one["file_name"], _segments(one), sizes.get(one["image_id"])))
            for one in content["annotations"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} is not in COCO's panoptic format ({error!r}).") from error
    for what, key in (("category", "categories"), ("image", "images")):
        _once(path, what, [one["id"] for one in content.get(key, ())])
    _once(path, "annotations of image", [image_id for image_id, _ in images])
    for image_id, annotation in images:
        _check(path, image_id, annotation, categories)
    return Annotations(path, dict(images), categories)


def write_json(
    path: Path,
    images: Mapping[ImageId, Annotation],
    categories: Mapping[int, Category] | None = None,
) -> None:
    """Write annotations: with `categories` as ground truth, whose images need sizes; else as predictions."""
    content: dict[str, Any] = {
        "annotations": [
            {
                "image_id": image_id,
                "file_name": annotation.file_name,
                "segments_info": [_info(segment) for segment in annotation.segments],
            }
            for image_id, annotation in images.items()
        ]
    }
    if categories is not None:
        sizeless = [str(image_id) for image_id, annotation in images.items() if annotation.size is None]
        if sizeless:
            raise InputError(f"no size is given for the images {some(sizeless)}, which {path} is to list.")
        content["images"] = [
            {"id": image_id, "height": size[0], "width": size[1]}
            for image_id, annotation in images.items()
            if (size := annotation.size)
        ]
        content["categories"] = [
            {"id": number, "name": category.name, "isthing": int(category.isthing)}
            for number, category in categories.items()
        ]
    with atomic.write(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def numbers_of(names: Iterable[str], categories: Mapping[int, Category]) -> tuple[int, ...]:
    """The numbers of the categories with these names; `InputError` for one that there is not."""
    numbers = {category.name: number for number, category in categories.items()}
    strange = [name for name in names if name not in numbers]
    if strange:
        raise InputError(f"there is no category {some(strange)}; there are {', '.join(numbers)}.")
    return tuple(numbers[name] for name in names)


def _image_id(entry: Mapping[str, Any]) -> ImageId:
    image_id = entry["image_id"]
    if not isinstance(image_id, int | str):
        raise TypeError(f"image_id {image_id!r} is neither a number nor a name")
    return image_id


def _segments(entry: Mapping[str, Any]) -> tuple[Segment, ...]:
    return tuple(
        Segment(
            int(one["id"]),
            int(one["category_id"]),
            bool(one.get("iscrowd", 0)),
            None if one.get("area") is None else int(one["area"]),
        )
        for one in entry["segments_info"]
    )


def _info(segment: Segment) -> dict[str, int]:
    info = {"id": segment.id, "category_id": segment.category, "iscrowd": int(segment.crowd)}
    return info if segment.area is None else info | {"area": segment.area}


def _check(path: Path, image_id: ImageId, annotation: Annotation, categories: Mapping[int, Category]) -> None:
    name = annotation.file_name
    if not isinstance(name, str) or not re.fullmatch(r"[^/\\:]+\.png", name):
        raise InputError(
            f"{path}: the file of image {image_id} is {name!r}; expected the name of a PNG without folder."
        )
    what = f"image {image_id}: segment"
    _once(path, what, [segment.id for segment in annotation.segments])
    for segment in annotation.segments:
        if not 0 < segment.id <= MAX_ID:
            raise InputError(f"{path}, {what} {segment.id}: expected an id from 1 to {MAX_ID}.")
        if categories and segment.category not in categories:
            raise InputError(
                f"{path}, {what} {segment.id} is of category {segment.category}, which it does not list."
            )
        if segment.area is not None and segment.area < 1:
            raise InputError(
                f"{path}, {what} {segment.id} has an area of {segment.area}; expected 1 or more."
            )


def _once(path: Path, what: str, ids: Sequence[ImageId]) -> None:
    if len(set(ids)) < len(ids):
        seen: set[ImageId] = set()
        twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise InputError(f"{path} has {what} {twice} twice.")
