"""PPR10K at 360p: `python -m data_scripts.ppr10k --root DIR --images ... --masks ...` makes DIR/PPR10K_360p.

The photographs lie on Google Drive, OneDrive and Baidu Pan, which no script can fetch from: download
`train_val_images_tif_360p` (91 GB) and `masks_360p` (56 MB) by hand; github.com/csjliang/PPR10K has the
links. They stay where you put them.

What is made is an index: which files belong together (by name) and to which part of the split (groups 0-1355
train, 1356-1680 validate), after each of them was decoded, measured and hashed. And, with --cache, a copy of
the photographs decoded, another 86 GB: an epoch is read faster from it, with the same numbers.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from cyclopts import App
from tqdm.auto import tqdm

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from cvpr21lib.papers.datasets import PPR10K
from cvpr21lib.ppr10k import decoded, index
from cvpr21lib.ppr10k.decoded import Cache
from cvpr21lib.ppr10k.index import EXPERTS, GROUPS, VERSIONS, Entry, Expert, File, Index
from data_scripts import command, licence, manifest, space
from data_scripts.obtain import obtain
from data_scripts.unpack import unpack

Item = TypeVar("Item")
Result = TypeVar("Result")
Found = dict[str, dict[str, Path]]
"""Files by the folder that they are published in, and by name without suffix."""


class Counts(NamedTuple):
    """How many photographs there must be in each part."""

    train: int = 8875
    val: int = 2286


COUNTS = Counts()

FOLDERS = {
    "source": "source",
    "source_aug_6": "source_aug_6",
    "source_aug": "source_aug_6",
    **{f"target_{expert}": f"target_{expert}" for expert in EXPERTS},
    "masks_360p": "masks_360p",
    "masks": "masks_360p",
}
"""Folders that are looked for, under their published names and under those that the official code wants."""
SUFFIXES = (".tif", ".tiff", ".png")
MISSING = "missing.txt"

app = App(name="python -m data_scripts.ppr10k", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    images: list[str] | None = None,
    masks: list[str] | None = None,
    partial: bool = False,
    cache: bool = False,
    workers: int = 4,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Check and index what you downloaded, fill the cache, or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, PPR10K_360p: the library's data_root.
    images
        The folder train_val_images_tif_360p, or one with train/ and val/ as the official code wants it, or an
        archive of either. Give it several times if it came in several archives, as from Google Drive.
        Without it: what is indexed already, else what lies in the root.
    masks
        The folder masks_360p, or an archive of it, unless it lies in the former.
    partial
        Go on with what is there and whole, though photographs, experts or source versions are missing.
    cache
        Keep the photographs decoded. A run that was broken off continues.
    workers
        Photographs that are read at the same time.
    accept_licence
        You have read PPR10K's terms and accept them.
    verify_only
        Compare the photographs and the cache with the index, and change nothing.
    """
    if verify_only:
        print(verify(index.read(root / index.FOLDER), workers))
        return
    licence.require(PPR10K, accept_licence, "the section “Agreement” of the README")
    made = prepare(root, images or [], masks or [], partial, workers)
    if cache:
        fill(made, workers)
    print(f"{made.folder} is ready: {len(made.train)} photographs to train on, {len(made.val)} to validate.")


def prepare(
    root: Path,
    images: Sequence[str] = (),
    masks: Sequence[str] = (),
    partial: bool = False,
    workers: int = 4,
) -> Index:
    """The index of the photographs in `images` and `masks` (folders or archives).

    It is made, unless there is one that names these very files with their sizes in bytes.

    Raises `InputError` for names that are not PPR10K's or come twice; and, unless `partial`, for files that
    are missing (listed one by one in `missing.txt` beside the index), damaged, or of another depth or size
    than published.
    """
    folder = root.resolve() / index.FOLDER
    if not images and not masks and (folder / index.NAME).exists():
        return index.read(folder)
    found = gather(
        [_opened(given, root) for given in images or [str(root)]], [_opened(given, root) for given in masks]
    )
    folder.mkdir(parents=True, exist_ok=True)
    photographs = assemble(found, folder / MISSING, partial)
    known = _known(folder)
    if known is not None and _listing(known) == [files.listing(folder) for files in photographs]:
        return known
    entries = _inspect_all(photographs, folder, partial, workers)
    train, val = (tuple(entry for entry in entries if _part(entry.name) == part) for part in COUNTS._fields)
    made = Index(folder, train, val, partial)
    index.write(made)
    return made


def _opened(given: str, root: Path) -> Path:
    """The folder that is given, or the one that the archive is unpacked to, now or before."""
    if Path(given).is_dir():
        return Path(given).absolute()
    archive = obtain(given, root)
    folder = root.resolve() / index.FOLDER / "unpacked" / archive.stem
    return folder if folder.is_dir() else unpack(archive, folder)


def gather(images: Sequence[Path], masks: Sequence[Path]) -> Found:
    """All files of PPR10K inside; names that are not its own, or come twice, are one error together.

    The originals of training photographs count as the first of `source_aug_6` if they lie in `source` only:
    they are the same files.
    """
    found: Found = {folder: {} for folder in FOLDERS.values()}
    problems = []
    for folder, published in _folders(images, masks):
        for path in sorted(folder.iterdir()):
            # macOS archives bring a hidden "._name.tif" beside each photograph.
            if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            twin = found[published].setdefault(path.stem, path)
            if not _is_name(path.stem, versions=published == "source_aug_6"):
                problems.append(f"{path} is not named <group>_<number>, with a group from 0 to {GROUPS[-1]}")
            elif twin != path:
                problems.append(f"{twin} and {path} are both {path.stem}; keep one")
    if problems:
        raise InputError(f"{len(problems)} files are not as published: {_some(problems, '; ')}.")
    if not any(found.values()):
        raise InputError(
            f"No photographs of PPR10K were found in {_some([str(place) for place in (*images, *masks)])}; "
            f"looked for folders named {', '.join(FOLDERS)}. Download train_val_images_tif_360p and "
            "masks_360p by hand (github.com/csjliang/PPR10K has the links) and give them with --images and "
            "--masks."
        )
    for name, path in found["source"].items():
        if _part(name) == "train":
            found["source_aug_6"].setdefault(name, path)
    return found


def _folders(images: Sequence[Path], masks: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Folders of photographs, however deep inside, and their published names; masks may have any folder."""
    seen = set()
    for place in (*images, *masks):
        for name, below, files in os.walk(place, followlinks=True):
            # A link counts under its own name, and its folder once.
            published, folder = FOLDERS.get(Path(name).name), Path(name).resolve()
            below[:] = sorted(n for n in below if not n.startswith((".", "__")) and n != index.FOLDER)
            if folder in seen:
                below.clear()
                continue
            seen.add(folder)
            if published is None and place in masks and any(file.lower().endswith(".png") for file in files):
                published = "masks_360p"
            if published is not None:
                yield folder, published


def _is_name(stem: str, versions: bool) -> bool:
    version = rf"(_[1-{VERSIONS - 1}])?" if versions else ""
    match = re.fullmatch(rf"(\d+)_\d+{version}", stem, re.ASCII)
    return match is not None and int(match[1]) in GROUPS


def _part(name: str) -> index.Part:
    return index.part_of(int(name.split("_")[0]))


class Files(NamedTuple):
    """The files of one photograph."""

    name: str
    sources: list[Path]  # the original first
    targets: dict[Expert, Path]
    mask: Path

    def all(self) -> list[Path]:
        return [*self.sources, *self.targets.values(), self.mask]

    def listing(self, folder: Path) -> list[tuple[str, int]]:
        """Paths, as an index in `folder` has them, and sizes in bytes."""
        return [(_relative(path, folder), path.stat().st_size) for path in self.all()]


def assemble(found: Found, missing: Path, partial: bool) -> list[Files]:
    """The files of each photograph that any folder knows, sorted by name.

    What is not there is listed in the file `missing` and summed up in an `InputError`. With `partial` it is
    only remarked on: photographs without original, mask or target are left out, and those without all source
    versions keep the original alone.
    """
    names = sorted({"_".join(name.split("_")[:2]) for files in found.values() for name in files})
    photographs = [_usable(name, found) for name in names]
    usable = [files for files in photographs if files is not None]
    problems = _count(names) + _list_missing(names, found, missing)
    if problems and (not partial or not usable):
        raise InputError(
            f"PPR10K is not complete: {'; '.join(problems)}. Bring the rest, or use what is there with "
            "--partial (at least one photograph with its original, mask and a target)."
        )
    if len(usable) < len(names):
        problems.append(f"{len(names) - len(usable)} photographs lack original, mask or target: left out")
    for problem in problems:
        print(f"note: {problem}", file=sys.stderr)
    return usable


def _usable(name: str, found: Found) -> Files | None:
    sources = [found[folder].get(stem) for folder, stem in _sources(name)]
    there = [path for path in sources if path is not None]
    targets = {e: found[f"target_{e}"][name] for e in EXPERTS if name in found[f"target_{e}"]}
    mask = found["masks_360p"].get(name)
    if sources[0] is None or not targets or mask is None:
        return None
    return Files(name, there if len(there) == len(sources) else there[:1], targets, mask)


def _sources(name: str) -> list[tuple[str, str]]:
    """Published folder and name of each source version."""
    if _part(name) == "val":
        return [("source", name)]
    return [("source_aug_6", f"{name}_{version}" if version else name) for version in range(VERSIONS)]


def _count(names: Sequence[str]) -> list[str]:
    counts = {part: sum(_part(name) == part for name in names) for part in COUNTS._fields}
    return [
        f"{counts[part]} photographs instead of {wanted} for {part}"
        for part, wanted in COUNTS._asdict().items()
        if counts[part] != wanted
    ]


def _list_missing(names: Sequence[str], found: Found, path: Path) -> list[str]:
    """Write all that is missing to `path`, one file a line, and sum it up folder by folder."""
    missing: dict[str, list[str]] = {}
    for name in names:
        targets = [(f"target_{expert}", name) for expert in EXPERTS]
        for folder, stem in (*_sources(name), *targets, ("masks_360p", name)):
            if stem not in found[folder]:
                suffix = ".png" if folder == "masks_360p" else ".tif"
                missing.setdefault(folder, []).append(stem + suffix)
    path.unlink(missing_ok=True)
    if not missing:
        return []
    with atomic.write(path) as temporary:
        lines = (f"{folder}/{name}\n" for folder, files in sorted(missing.items()) for name in files)
        temporary.write_text("".join(lines))
    listed = [f"{folder} lacks {len(files)} files ({_some(files)})" for folder, files in missing.items()]
    return [*listed, f"all of them are listed in {path}"]


def _known(folder: Path) -> Index | None:
    """The index that is there already; None where there is none that can be read."""
    try:
        return index.read(folder)
    except InputError:
        return None


def _listing(known: Index) -> list[list[tuple[str, int]]]:
    return [[file[:2] for file in _files(entry)] for entry in _entries(known)]


def _entries(made: Index) -> list[Entry]:
    return sorted((*made.train, *made.val), key=lambda entry: entry.name)


def _files(entry: Entry) -> list[File]:
    return [picture.file for picture in decoded.pictures(entry)]


def _inspect_all(photographs: Sequence[Files], folder: Path, partial: bool, workers: int) -> list[Entry]:
    """The entries of all photographs; with `partial`, of those whose files are as they should be."""
    results = _each(lambda files: _inspect(files, folder), photographs, workers, "Reading")
    entries = [result for result in results if isinstance(result, Entry)]
    problems = [problem for result in results if isinstance(result, list) for problem in result]
    if problems and (not partial or not entries):
        raise InputError(
            f"{len(problems)} files are not as published: {_some(problems, '; ')}. Fetch them again, or "
            "leave their photographs out by --partial."
        )
    for problem in problems:
        print(f"note: {problem}: its photograph is left out", file=sys.stderr)
    return entries


def _inspect(files: Files, folder: Path) -> Entry | list[str]:
    """The index's entry for a photograph, or what is wrong with its files."""
    problems, sizes, described = [], {}, {}
    for path in files.all():
        try:
            sizes[path] = decoded.decode(path, 16 if path in files.sources else 8).shape[:2]
        except InputError as error:
            problems.append(str(error).rstrip("."))
        described[path] = File(_relative(path, folder), path.stat().st_size, manifest.sha256(path))
    original = files.sources[0]
    if original not in sizes:
        return problems
    height, width = sizes[original]
    problems += [
        f"{path} has {size[1]} x {size[0]} pixels, its photograph {original} {width} x {height}"
        for path, size in sizes.items()
        if size != (height, width)
    ]
    return problems or Entry(
        files.name,
        height,
        width,
        tuple(described[path] for path in files.sources),
        {expert: described[path] for expert, path in files.targets.items()},
        described[files.mask],
    )


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return path.as_posix()


def fill(made: Index, workers: int = 4) -> None:
    """Decode every photograph that the cache lacks, and remove what it holds of others."""
    cache, entries = Cache(made), _entries(made)
    cache.folder.mkdir(exist_ok=True)
    for path in set(cache.folder.iterdir()) - {cache.path(entry) for entry in entries}:
        path.unlink()
    lacking = [entry for entry in entries if not cache.holds(entry)]
    size = sum(picture.size for entry in lacking for picture in decoded.pictures(entry))
    space.require(cache.folder, size, "The cache")
    _each(cache.write, lacking, workers, "Decoding")


def verify(made: Index, workers: int = 4) -> str:
    """Compare all files and the cache with the index: a sentence that all is well, or `InputError`."""
    cache, entries = Cache(made), _entries(made)
    changes = _each(lambda entry: _changes(cache, entry), entries, workers, "Verifying")
    problems = [problem for found in changes for problem in found]
    if problems:
        raise InputError(
            f"{len(problems)} files are not as they were prepared: {_some(problems)}. Fetch the published "
            f"ones again and remove {made.folder / index.NAME}, then run the script again."
        )
    files, cached = sum(len(_files(entry)) for entry in entries), sum(map(cache.holds, entries))
    return (
        f"{made.folder}: {files} files, all as they were prepared; "
        f"{cached} of {len(entries)} photographs are in the cache."
    )


def _changes(cache: Cache, entry: Entry) -> list[str]:
    problems = []
    for file in _files(entry):
        path = cache.index.path(file.path)
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != file.size or manifest.sha256(path) != file.sha256:
            problems.append(f"{path} has changed")
    kept = cache.path(entry)
    if not problems and kept.exists() and (not cache.holds(entry) or cache.differs(entry)):
        problems.append(f"{kept} is damaged (remove it)")
    return problems


def _each(work: Callable[[Item], Result], items: Sequence[Item], workers: int, label: str) -> list[Result]:
    """`work` on every item, several at a time; the first error, or the user, stops it."""
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work, item) for item in items]
        try:
            return [job.result() for job in tqdm(running, label)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _some(names: Sequence[str], separator: str = ", ") -> str:
    return separator.join(names[:5]) + (f"{separator}..." if len(names) > 5 else "")


if __name__ == "__main__":
    command.run(app)
