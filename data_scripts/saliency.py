"""Saliency maps for VOC 2012 or COCO 2014: `python -m data_scripts.saliency --root DIR --dataset voc12 ...`.

`--source` takes yours: the folder or archive of EPS's authors (PFAN; Google Drive, linked in their README,
github.com/halbielee/EPS), or NAME.png of any other model. They are looked at one by one and copied to
`VOC2012_saliency`, beside the data set.

`--fallback` makes maps without any model, so that everything can be run: how strong the edges are between a
pixel and the border of the image (geodesic saliency, Wei et al., ECCV 2012). They are far worse than those of
a trained model, go to `VOC2012_saliency_fallback`, and each file says what it is; so does a run's record.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from cyclopts import App
from PIL import Image, PngImagePlugin
from skimage.graph import MCP_Geometric
from tqdm.auto import tqdm

from cvpr21lib import atomic
from cvpr21lib.eps.data import TRAINING_SPLIT, DatasetName, find, saliency_folder
from cvpr21lib.eps.sources import FALLBACK
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import stored
from cvpr21lib.segmentation.layout import Layout, some
from cvpr21lib.segmentation.stored import DamagedFile
from data_scripts import command, manifest, scratch, space
from data_scripts.unpack import unpack

app = App(name="python -m data_scripts.saliency", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    dataset: DatasetName = "voc12",
    source: Path | None = None,
    fallback: bool = False,
    workers: int = 4,
    verify_only: bool = False,
) -> None:
    """Check and copy your saliency maps, make a fallback, or verify what was prepared.

    Parameters
    ----------
    root
        The data_root that holds VOC2012 or COCO2014.
    dataset
        voc12 or coco14; every image of its training set needs a map.
    source
        Folder, or zip or tar archive, with NAME.png for each image: 8-bit grey, as large as the image.
    fallback
        Make maps without a trained model.
    workers
        Maps that are looked at, or made, at the same time.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    layout = find(root, dataset)
    folder = saliency_folder(layout, fallback)
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    if (source is None) != fallback:
        raise InputError("Give either --source with your saliency maps, or --fallback to have some made.")
    names = layout.names(TRAINING_SPLIT[dataset])
    remarks = (
        make_fallback(layout, names, folder, workers)
        if source is None
        else take(source, layout, names, folder, workers)
    )
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def take(source: Path, layout: Layout, names: Sequence[str], folder: Path, workers: int = 4) -> list[str]:
    """Look at the user's map of every image, and copy them to `folder`; remarks on what is only unusual."""
    with scratch.beside(folder) as partial:
        inside = source if source.is_dir() else unpack(source, partial / "content")
        maps = _folder_with(names, inside)
        remarks = check(maps, layout, names, workers)
        copies = partial / "maps"
        copies.mkdir()
        wanted = sum((maps / f"{name}.png").stat().st_size for name in names)
        space.require(copies, wanted, "Copying the saliency maps")
        for name in tqdm(names, "Copying"):
            shutil.copyfile(maps / f"{name}.png", copies / f"{name}.png")
        manifest.write(copies, {"source": source.name})
        copies.rename(folder)
    return remarks


def _folder_with(names: Sequence[str], inside: Path) -> Path:
    """The folder at or below `inside` that holds most of the maps."""
    wanted = set(names)
    found = Counter(path.parent for path in inside.rglob("*.png") if path.stem in wanted)
    if not found:
        raise InputError(f"{inside} holds no saliency map such as {names[0]}.png.")
    return found.most_common(1)[0][0]


Finding = Literal["missing", "damaged", "coloured", "of another size", "black"]


def check(folder: Path, layout: Layout, names: Sequence[str], workers: int = 4) -> list[str]:
    """Raise one `InputError` that names every map that cannot be used; a remark on those all black."""
    found: dict[str, list[str]] = {}
    with ThreadPoolExecutor(workers) as pool:
        findings = pool.map(lambda name: _look(folder / f"{name}.png", layout.image(name)), names)
        for name, finding in tqdm(zip(names, findings, strict=True), "Looking at maps", len(names)):
            if finding:
                found.setdefault(finding, []).append(name)
    black = found.pop("black", [])
    if len(black) == len(names):
        found["black: nothing is salient anywhere"] = black
    if found:
        listed = "; ".join(f"{len(those)} {what} ({some(those)})" for what, those in found.items())
        raise InputError(f"Of {len(names)} saliency maps in {folder}, there are {listed}.")
    return [f"{len(black)} maps are all black ({some(black)})"] if black else []


def _look(path: Path, image: Path) -> Finding | None:
    if not path.is_file():
        return "missing"
    try:
        values = stored.read_grey(path)
    except DamagedFile:
        return "damaged"
    except InputError:
        return "coloured"
    if values.shape != stored.size(image):
        return "of another size"
    return None if values.any() else "black"


def make_fallback(layout: Layout, names: Sequence[str], folder: Path, workers: int = 4) -> list[str]:
    """Make the map of every image, going on where an earlier call was interrupted; never a remark."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(layout.image(name), folder / f"{name}.png") for name in names]
    with ThreadPoolExecutor(workers) as pool:
        for _ in tqdm(pool.map(_make_one, jobs), "Making a fallback", len(jobs)):
            pass
    manifest.write(folder, {"fallback": FALLBACK})
    return []


def _make_one(job: tuple[Path, Path]) -> None:
    image, path = job
    if path.exists():
        return
    about = PngImagePlugin.PngInfo()
    about.add_text("Description", FALLBACK)
    with atomic.write(path) as temporary:
        Image.fromarray(geodesic(stored.read_rgb(image))).save(temporary, "PNG", pnginfo=about)


SIDE = 160
"""Longer side, pixels, at which distances are measured."""
STEEP = 25.0
"""Length of a path in CIELAB units that counts as fully salient, if no pixel of the image is further away."""


def geodesic(image: np.ndarray) -> np.ndarray:
    """Geodesic saliency, uint8 (H, W), of uint8 (H, W, 3): bright is what no smooth path joins to the border.

    A path costs the colour edges (CIELAB gradient) that it crosses. The weaker half of all edges is free, or
    long paths would cost most. 255 is the distance of the furthest 2% of the pixels, at least `STEEP`.
    """
    height, width = image.shape[:2]
    factor = SIDE / max(height, width)
    small = cv2.resize(
        image, (max(2, round(width * factor)), max(2, round(height * factor))), interpolation=cv2.INTER_AREA
    )
    lab = cv2.GaussianBlur(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), 1)
    edges = np.sqrt(sum((np.gradient(lab, axis=axis) ** 2).sum(2) for axis in (0, 1)))
    costs = np.maximum(edges - np.median(edges), 0) + 1e-3
    border = np.ones(edges.shape, bool)
    border[1:-1, 1:-1] = False
    distance, _ = MCP_Geometric(costs).find_costs(np.argwhere(border).tolist())
    salient = np.clip(distance / max(np.percentile(distance, 98), STEEP), 0, 1)
    return np.rint(cv2.resize(salient, (width, height)) * 255).astype(np.uint8)


if __name__ == "__main__":
    command.run(app)
