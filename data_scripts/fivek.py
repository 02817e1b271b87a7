"""MIT-Adobe FiveK as LPTN uses it: `python -m data_scripts.fivek --root DIR ...` makes `DIR/FiveK_480p`.

Two ways lead there. The 480p package of LPTN's authors, `FiveK.zip`, has no plain link: fetch it by hand
from the Google Drive that their README names (github.com/csjliang/LPTN), and give it with `--archive`. Or
give your own renderings of the 5000 photographs, the camera's (`--sources`) and expert C's (`--targets`).

The split is the one of the unpaired package: photographs 1-2250 are training sources (train/A), the experts'
versions of 2251-4500 training targets (train/B), and 4501-5000 are test pairs (test/A, test/B).
"""

from __future__ import annotations

import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from cyclopts import App
from tqdm.auto import tqdm

from cvpr21lib import images
from cvpr21lib.errors import InputError
from cvpr21lib.images import Photo
from cvpr21lib.lptn import photographs
from cvpr21lib.papers.datasets import FIVEK
from data_scripts import command, domains, licence, manifest, scratch, space
from data_scripts.colour import to_srgb
from data_scripts.obtain import obtain
from data_scripts.unpack import unpack

Size = Literal["480p", "1080p", "original"]
SHORT_SIDE: dict[str, int | None] = {"480p": 480, "1080p": 1080, "original": None}


class Split(NamedTuple):
    """How many photographs, in the order of their numbers: training sources, training targets, test pairs."""

    sources: int = 2250
    targets: int = 2250
    test: int = 500

    def numbers(self, pairs: bool) -> dict[str, range]:
        """Which photographs stand in which folder; `pairs`: all that are not for testing stand in both."""
        middle, end = self.sources + 1, self.sources + self.targets + 1
        test = range(end, end + self.test)
        a, b = (range(1, end), range(1, end)) if pairs else (range(1, middle), range(middle, end))
        return {"train/A": a, "train/B": b, "test/A": test, "test/B": test}

    def counts(self, pairs: bool) -> domains.Counts:
        return domains.Counts(*(len(numbers) for numbers in self.numbers(pairs).values()))


SPLIT = Split()

TERMS = "LicenseAdobe.txt for the photographs in filesAdobe.txt, LicenseAdobeMIT.txt for filesAdobeMIT.txt"

app = App(name="python -m data_scripts.fivek", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    size: Size = "480p",
    archive: str | None = None,
    sha256: str | None = None,
    sources: Path | None = None,
    targets: Path | None = None,
    pairs: bool = False,
    crop: int = 256,
    workers: int = 4,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Prepare FiveK, check and record one that you laid out yourself, or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, FiveK_480p (FiveK_1080p, FiveK_original): the library's data_root.
    size
        Short side of the photographs.
    archive
        FiveK.zip of LPTN's authors where you put it, the folder you unpacked it to, or a web address.
    sha256
        The archive's checksum, if you know it.
    sources
        Folder of your camera renderings, numbered in their names (a0001-jmac_DSC1459.tif, 1.jpg, ...).
    targets
        Folder of expert C's renderings, numbered alike.
    pairs
        Build pairs for supervised training: photographs 1-4500 in train/A and in train/B.
    crop
        Side of the training crops; every training photograph must hold one.
    workers
        Photographs that are resized at the same time.
    accept_licence
        You have read FiveK's terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / f"FiveK_{size}"
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(FIVEK, accept_licence, TERMS)
    if archive is not None and size == "480p":
        remarks = from_archive(archive, folder, crop, sha256)
    elif sources is not None and targets is not None:
        remarks = from_renderings(sources, targets, folder, size, crop, pairs, workers)
    elif folder.is_dir() and not (folder / manifest.NAME).exists():
        remarks = domains.check(folder, SPLIT.counts(pairs), crop)
        manifest.write(folder, {"folder": "was there already"})
    else:
        raise InputError(
            "Give --archive FiveK.zip (480p only; from the Google Drive that github.com/csjliang/LPTN "
            "names), or both --sources and --targets, folders of your own renderings."
        )
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def from_archive(given: str, folder: Path, crop: int = 256, sha256: str | None = None) -> list[str]:
    """Unpack (or copy) the authors' package, check it, and put it to `folder`; the check's remarks."""
    with scratch.beside(folder) as partial:
        if Path(given).is_dir():
            about = {"folder": str(given)}
            found = _copy(_layout_in(Path(given), folder.name), partial / "copy")
        else:
            packed = obtain(given, folder.parent, sha256)
            about = {"archive": packed.name, "sha256": manifest.sha256(packed)}
            found = _layout_in(unpack(packed, partial / "archive"), folder.name)
        remarks = domains.check(found, SPLIT.counts(pairs=False), crop)
        manifest.write(found, about)
        found.rename(folder)
    return remarks


def _layout_in(inside: Path, name: str) -> Path:
    """The folder with train/A in it, wherever the archive put it; of several the one called `name`."""
    found = [
        path.parent.parent
        for path in inside.rglob("train/A")
        if path.is_dir() and "__MACOSX" not in path.parts
    ]
    named = [path for path in found if path.name == name] if len(found) > 1 else found
    if len(named) != 1:
        raise InputError(
            f"There should be one folder with train/A, train/B, test/A and test/B inside, but there are "
            f"{len(found)}; is this LPTN's FiveK.zip?"
        )
    return named[0]


def _copy(source: Path, target: Path) -> Path:
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    space.require(target.parent, size, f"Copying {source}")
    return Path(shutil.copytree(source, target))


def from_renderings(
    sources: Path,
    targets: Path,
    folder: Path,
    size: Size,
    crop: int = 256,
    pairs: bool = False,
    workers: int = 4,
) -> list[str]:
    """Resize renderings of the user's own, lay them out in `folder`, check it; the check's remarks.

    JPEG, PNG or TIFF of 8 or 16 bits, sRGB or ProPhoto RGB. The result is sRGB JPEG at quality 95 with full
    colour resolution, its short side as `size` says; a smaller photograph keeps its size.
    """
    renderings = {"A": _numbered(sources), "B": _numbered(targets)}
    numbers = SPLIT.numbers(pairs)
    _require_all(renderings, numbers)
    _require_like_pairs(renderings, numbers)
    with scratch.beside(folder) as partial:
        layout = partial / "layout"
        for part in numbers:
            (layout / part).mkdir(parents=True)
        jobs = [
            (renderings[part[-1]][number].path, layout / part / f"{number:04d}.jpg")
            for part, members in numbers.items()
            for number in members
        ]
        _render_all(jobs, SHORT_SIDE[size], workers)
        remarks = domains.check(layout, SPLIT.counts(pairs), crop)
        manifest.write(
            layout, {"sources": str(sources), "targets": str(targets), "size": size, "pairs": pairs}
        )
        layout.rename(folder)
    return [] if pairs else remarks


class Rendering(NamedTuple):
    """One of the user's own photographs."""

    path: Path
    size: tuple[int, int]  # height, width


def _numbered(folder: Path) -> dict[int, Rendering]:
    """The renderings by number: the first one in the name (a0001-jmac_DSC1459.tif is number 1)."""
    found: dict[int, Rendering] = {}
    photos = photographs.Folder(folder)
    for path, size in zip(photos.paths, photos.sizes, strict=True):
        digits = re.search(r"\d+", path.stem)
        if digits is None:
            raise InputError(f"{path} has no number in its name; FiveK's photographs are numbered 1 to 5000.")
        number = int(digits.group())
        if number in found:
            raise InputError(f"{path} and {found[number].path} are both number {number}; keep one of them.")
        found[number] = Rendering(path, size)
    return found


def _require_all(renderings: dict[str, dict[int, Rendering]], numbers: dict[str, range]) -> None:
    for domain, option in (("A", "--sources"), ("B", "--targets")):
        wanted = {number for part, members in numbers.items() if part[-1] == domain for number in members}
        missing = sorted(wanted - set(renderings[domain]))
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise InputError(f"{option} lacks {len(missing)} of {len(wanted)} photographs: numbers {shown}.")


def _require_like_pairs(renderings: dict[str, dict[int, Rendering]], numbers: dict[str, range]) -> None:
    """Both renderings of a pair need the same size; known from their headers before hours of resizing."""
    for number in sorted(set(numbers["test/A"]) | (set(numbers["train/A"]) & set(numbers["train/B"]))):
        ours, theirs = renderings["A"][number], renderings["B"][number]
        if ours.size != theirs.size:
            raise InputError(
                f"{ours.path} is {ours.size[1]} x {ours.size[0]}, {theirs.path} is {theirs.size[1]} x "
                f"{theirs.size[0]} pixels; both renderings of a pair must have the same size."
            )


def _render_all(jobs: list[tuple[Path, Path]], short_side: int | None, workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(_render, source, target, short_side) for source, target in jobs]
        try:
            for job in tqdm(running, "Resizing"):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _render(source: Path, target: Path, short_side: int | None) -> None:
    photo = images.read(source)
    images.write(target, Photo(shrink(to_srgb(photo, str(source)), short_side)))


def shrink(pixels: np.ndarray, short_side: int | None) -> np.ndarray:
    """Average areas until the short side is `short_side` pixels; None, or a smaller image: as it is."""
    height, width = pixels.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    return cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    command.run(app)
