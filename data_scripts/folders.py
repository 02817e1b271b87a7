"""Any two folders as two domains: `python -m data_scripts.folders --root DIR --a DAY --b NIGHT`.

LPTN's day-to-night and summer-to-winter photographs were never published; photographs of your own can take
their place. They are copied to `train/A` and `train/B` below `--root`, a few of A to `test/A`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from cyclopts import App

from cvpr21lib.errors import InputError
from cvpr21lib.lptn import photographs
from data_scripts import command, domains, manifest, scratch, space

app = App(name="python -m data_scripts.folders", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    a: Path | None = None,
    b: Path | None = None,
    test_a: Path | None = None,
    test_b: Path | None = None,
    hold_out: int = 10,
    crop: int = 256,
    verify_only: bool = False,
) -> None:
    """Lay out two domains, or verify what was laid out.

    Parameters
    ----------
    root
        Folder to be made, the library's data_root.
    a
        Photographs of the source domain (day).
    b
        Photographs of the target domain (night).
    test_a
        Photographs of the source domain for testing; without them some of A are held out.
    test_b
        What should become of them, where that is known: equal names and sizes.
    hold_out
        How many photographs of A, evenly spaced by name, are kept for testing.
    crop
        Side of the training crops; smaller photographs are left out.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    if verify_only:
        print(f"{root}: {manifest.verify(root)} files, all as they were laid out.")
        return
    if a is None or b is None:
        raise InputError("Give both --a and --b, folders of photographs of the two domains.")
    for remark in lay_out(root, a, b, test_a, test_b, hold_out, crop):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{root} is ready.")


def lay_out(
    root: Path,
    a: Path,
    b: Path,
    test_a: Path | None = None,
    test_b: Path | None = None,
    hold_out: int = 10,
    crop: int = 256,
) -> list[str]:
    """Copy the photographs to the layout in `root`, check it; remarks on what is unusual."""
    if test_b is not None and test_a is None:
        raise InputError("--test-b shows what should become of --test-a; give both.")
    large_a, remarks_a = _large_enough(a, crop)
    large_b, remarks_b = _large_enough(b, crop)
    parts = {"train/A": large_a, "train/B": large_b}
    if test_a is not None:
        parts["test/A"] = photographs.Folder(test_a).paths
    else:
        if not 1 <= hold_out < len(large_a):
            raise InputError(
                f"--hold-out is {hold_out}, but {a} has {len(large_a)} photographs for both uses."
            )
        parts["test/A"] = large_a[:: len(large_a) // hold_out][:hold_out]
        parts["train/A"] = [path for path in large_a if path not in set(parts["test/A"])]
    if test_b is not None:
        parts["test/B"] = photographs.Folder(test_b).paths
    with scratch.beside(root) as partial:
        layout = partial / "layout"
        wanted = sum(path.stat().st_size for paths in parts.values() for path in paths)
        space.require(partial, wanted, "Copying the photographs")
        for part, paths in parts.items():
            (layout / part).mkdir(parents=True)
            for path in paths:
                shutil.copyfile(path, layout / part / path.name)
        remarks = domains.check(layout, None, crop)
        manifest.write(layout, {"a": str(a), "b": str(b)})
        layout.rename(root)
    return remarks_a + remarks_b + remarks


def _large_enough(folder: Path, crop: int) -> tuple[list[Path], list[str]]:
    images = photographs.Folder(folder)
    small = domains.too_small(images, crop)
    kept = [path for path, size in zip(images.paths, images.sizes, strict=True) if min(size) >= crop]
    remark = f"{len(small)} photographs of {folder} are smaller than the crop of {crop} pixels and left out"
    return kept, [remark] if small else []


if __name__ == "__main__":
    command.run(app)
