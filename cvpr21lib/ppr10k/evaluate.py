"""PPR10K's table for a folder of results: `evaluate(results, targets, masks).table()`.

Photographs are paired by name, never by position: `1356_0.png` belongs to the target `1356_0.tif` and to the
mask `1356_0.png`, whatever stands beside them. A photograph that cannot be measured (damaged, without its
target or mask, of another size) is named with its reason, and the rest is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tqdm.auto import tqdm

from cvpr21lib import images
from cvpr21lib.errors import InputError
from cvpr21lib.papers import pages
from cvpr21lib.ppr10k import metrics
from cvpr21lib.ppr10k.metrics import Measures

COLUMNS = {
    "psnr": "PSNR (dB) ↑",
    "delta_e": "ΔE_ab ↓",
    "psnr_hc": "PSNR-HC (dB) ↑",
    "delta_e_hc": "ΔE-HC ↓",
    "mglc": "MGLC ↓",
    "target_mglc": "target's MGLC",
    "mglc_gap": "MGLC's distance to it ↓",
}
"""Keys of `metrics.summary`, and the heads of their columns."""


@dataclass(frozen=True)
class Report:
    """What a folder of results scored."""

    name: str
    """The folder of results."""
    photographs: dict[str, Measures]
    """By name, in the order of names."""
    failed: dict[str, str]
    """Results that could not be measured, each with the reason."""
    missing: tuple[str, ...]
    """Targets without a result."""

    @property
    def numbers(self) -> dict[str, float]:
        """The paper's columns, as `metrics.summary` gives them."""
        return metrics.summary(self.photographs)

    def table(self, each: bool = False) -> str:
        """The numbers as Markdown, then whatever was not evaluated; `each`: a row a photograph as well."""
        numbers = self.numbers
        head = [COLUMNS[name] for name in numbers]
        rows = [(self.name, *(f"{value:.2f}" for value in numbers.values()))]
        if each:
            rows += [
                (name, *(f"{getattr(one, key):.2f}" if hasattr(one, key) else "" for key in numbers))
                for name, one in self.photographs.items()
            ]
        groups = len({metrics.group_id(name) for name in self.photographs})
        count = f"{len(self.photographs):,} photographs in {groups:,} groups"
        return "\n\n".join([pages.markdown(("", *head), rows), count, *self._not_evaluated()])

    def _not_evaluated(self) -> list[str]:
        parts = []
        if self.failed:
            lines = [f"- {name}: {reason}" for name, reason in self.failed.items()]
            parts.append("\n".join([f"Not evaluated ({len(lines):,}):", "", *lines]))
        if self.missing:
            names = ", ".join(self.missing[:LISTED])
            more = f" and {len(self.missing) - LISTED:,} more" if len(self.missing) > LISTED else ""
            parts.append(f"Targets without a result ({len(self.missing):,}): {names}{more}")
        return parts


LISTED = 20
"""How many of the missing results a table names; the folder of targets may hold the training set, too."""


def evaluate(
    results: str | Path,
    targets: str | Path,
    masks: str | Path | None = None,
    *,
    resize_masks: bool = False,
) -> Report:
    """Measure every photograph of the folder `results`, one by one, so that memory stays flat.

    Args:
        results: the retouched photographs, `<group>_<index>` with any suffix that `images.read` takes.
        targets: one expert's versions, by the same names.
        masks: human masks, by the same names; without them the human-centred columns are left out.
        resize_masks: whether a mask of another size is resized, as the official script does unasked (see
            `metrics.resize_mask`). Otherwise its photograph is not evaluated: it may be another photograph's.

    Every image is brought to 8 bits first, by `metrics.quantise`. So results, sources or targets of 16 bits
    are compared like the PNG files that the official code saves; transparency and colour profiles are not
    looked at. A group with a photograph that failed is judged by its others.

    Raises:
        InputError: a folder that does not exist or holds no images, two files of one name in it, or no
            photograph that could be measured.
    """
    results = Path(results)
    found, wanted = _by_name(results, "results"), _by_name(Path(targets), "targets")
    partners = {"target": wanted} | ({} if masks is None else {"mask": _by_name(Path(masks), "masks")})

    photographs: dict[str, Measures] = {}
    failed: dict[str, str] = {}
    for name, path in tqdm(found.items(), f"Evaluating {results.name}"):
        lacking = [f"no {kind} of this name" for kind, files in partners.items() if name not in files]
        if lacking:
            failed[name] = " and ".join(lacking)
            continue
        try:
            paths = [path, *(files[name] for files in partners.values())]
            photographs[name] = _measure(paths, resize_masks)
        except InputError as error:
            failed[name] = str(error)
    if not photographs:
        name, reason = next(iter(failed.items()))
        raise InputError(
            f"none of the {len(failed):,} photographs in {results} could be evaluated; {name}: {reason}"
        )
    return Report(results.name, photographs, failed, tuple(name for name in wanted if name not in found))


def _measure(paths: Sequence[Path], resize_masks: bool) -> Measures:
    """Result, target and perhaps mask, from their files."""
    pred, target = (metrics.quantise(images.read(path).pixels) for path in paths[:2])
    if len(paths) == 2:
        return metrics.measure(pred, target)
    mask = images.read(paths[2]).pixels.max(-1)
    size = pred.shape[:2]
    if resize_masks and mask.shape != size:
        mask = metrics.resize_mask(mask, (size[0], size[1]))
    return metrics.measure(pred, target, mask)


def _by_name(folder: Path, what: str) -> dict[str, Path]:
    """The images of a folder by their names without suffix, sorted."""
    if not folder.is_dir():
        beside = [path.name for path in folder.parent.glob("*") if path.is_dir()]
        near = get_close_matches(folder.name, beside)
        hint = f"; there is {' and '.join(near)}" if near else ""
        raise InputError(f"the folder of {what} {folder} does not exist{hint}")
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        # macOS archives bring a hidden "._name.png" beside each photograph.
        if path.suffix.lower() not in images.WRITABLE or path.name.startswith("."):
            continue
        if path.stem in paths:
            raise InputError(
                f"{paths[path.stem]} and {path} have one name, by which photographs are paired; remove one"
            )
        paths[path.stem] = path
    if not paths:
        raise InputError(f"the folder of {what} {folder} holds no images ({', '.join(images.WRITABLE)})")
    return paths
