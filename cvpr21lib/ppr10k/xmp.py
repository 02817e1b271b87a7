"""The published augmentation of PPR10K: Camera Raw sidecars whose sliders are moved at random.

Every photograph of the data set is rendered from a raw file and an XMP sidecar. Five further versions of
each training source were made by rewriting six attributes of its sidecar and rendering again, by hand, in
Lightroom. `augment` makes such sidecars; `augment_pairs` makes those of the official repository's second
script, which moves source and target together. Without Lightroom, `sliders.render` approximates what the six
do to a photograph.

All functions are pure on the text of a sidecar except the two that work on folders. Official scripts:
`utils/data_augment_get_xmps.py` and `utils/data_augment_get_target_xmp.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.parsers import expat

import numpy as np
from tqdm.auto import tqdm

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import mix

RANGES = {
    "Temperature": (-500.0, 500.0),
    "Tint": (-10.0, 10.0),
    "Exposure2012": (-1.0, 1.0),
    "Highlights2012": (-35.0, 35.0),
    "Contrast2012": (-30.0, 0.0),
    "Saturation": (0.0, 30.0),
}
"""What is added to a source's sliders: kelvins, Camera Raw's tint, stops, and three scales of -100 to 100."""

PAIRED_RANGES = {
    "Temperature": (-1000.0, 1000.0),
    "Tint": (-10.0, 10.0),
    "Exposure2012": (-0.5, 0.5),
    "Highlights2012": (-30.0, 30.0),
    "Contrast2012": (-20.0, 20.0),
}
"""What the second script adds to the source; all but temperature and tint are subtracted from the target."""

_WHITE_BALANCE = ("Temperature", "Tint")

VERSIONS = 5
"""Further versions of a photograph in the published set (the first script, run as it stands, makes four)."""


def augment(sources: str | Path, out: str | Path, *, versions: int = VERSIONS, seed: int = 0) -> list[Path]:
    """For every `NAME.xmp` in `sources` write `NAME_1.xmp` to `NAME_<versions>.xmp` into `out`.

    Each of the six sliders gets its own uniform offset from `RANGES`. A version depends on `seed`, name and
    number alone. Returns the files written, each whole or absent; the originals are only read.

    Raises `InputError` where a folder or its sidecars are missing, `out` is `sources` itself, or a sidecar
    (which is named) is broken or lacks a slider.
    """
    sources, out = Path(sources), Path(out)
    made = []
    for path in tqdm(_sidecars(sources, out), "Augmenting sidecars"):
        text = _read_text(path)
        values = read(text, RANGES, str(path))
        for version in range(1, versions + 1):
            rng = np.random.default_rng(mix(seed, path.stem, version))
            moved = rewrite(text, _added(values, offsets(rng)), str(path))
            made.append(_write(out / f"{path.stem}_{version}.xmp", moved))
    return made


def augment_pairs(
    sources: str | Path,
    targets: str | Path,
    out_sources: str | Path,
    out_targets: str | Path,
    *,
    versions: int = VERSIONS,
    seed: int = 0,
) -> list[tuple[Path, Path]]:
    """`augment` for source and target together, paired by name; not how the published set was made.

    The source's offsets of exposure, highlights and contrast are taken away from the target again, so that
    the two sidecars ask for different strengths of the same retouching. Files are numbered from 1 (the
    official script numbers them from 2).
    """
    sources, out_sources = Path(sources), Path(out_sources)
    targets, out_targets = Path(targets), Path(out_targets)
    partners = {path.name: path for path in _sidecars(targets, out_targets)}
    made = []
    for path in tqdm(_sidecars(sources, out_sources), "Augmenting pairs of sidecars"):
        if path.name not in partners:
            raise InputError(
                f"{path} has no target of the same name in {targets}; add it or remove the source"
            )
        partner = partners[path.name]
        source, target = _read_text(path), _read_text(partner)
        source_values = read(source, PAIRED_RANGES, str(path))
        target_values = read(target, PAIRED_RANGES, str(partner))
        for version in range(1, versions + 1):
            name = f"{path.stem}_{version}.xmp"
            rng = np.random.default_rng(mix(seed, path.stem, version))
            added = paired_offsets(rng, target_values["Highlights2012"])
            taken = {slider: -value for slider, value in added.items() if slider not in _WHITE_BALANCE}
            moved_source = rewrite(source, _added(source_values, added), str(path))
            moved_target = rewrite(target, _added(target_values, taken), str(partner))
            made.append((_write(out_sources / name, moved_source), _write(out_targets / name, moved_target)))
    return made


def offsets(rng: np.random.Generator) -> dict[str, float]:
    """One uniform draw from each of `RANGES`: the published augmentation."""
    return {slider: float(rng.uniform(low, high)) for slider, (low, high) in RANGES.items()}


def paired_offsets(rng: np.random.Generator, target_highlights: float) -> dict[str, float]:
    """One uniform draw from each of `PAIRED_RANGES`, the highlights' cut so that the target's stay in ±100.

    (For a target with positive highlights the official script always draws 30, by a slip in the lower end.)
    """
    ranges = dict(PAIRED_RANGES)
    low, high = ranges["Highlights2012"]
    ranges["Highlights2012"] = max(low, target_highlights - 100), min(high, target_highlights + 100)
    return {slider: float(rng.uniform(low, high)) for slider, (low, high) in ranges.items()}


def read(text: str, sliders: Iterable[str], name: str = "the sidecar") -> dict[str, float]:
    """The values of `sliders` (without `crs:`) in the text of a sidecar; `name` is for error messages."""
    encoded, values = text.encode(), {}
    for slider, (start, end) in _places(encoded, sliders, name).items():
        value = encoded[start:end].decode()
        try:
            values[slider] = float(value)
        except ValueError as error:
            raise InputError(f"{name}: its slider {slider} is {value!r}, which is not a number") from error
    return values


def rewrite(text: str, values: Mapping[str, float], name: str = "the sidecar") -> str:
    """The sidecar with new values of some sliders, in the official scripts' format; all else is kept."""
    encoded = text.encode()
    places = _places(encoded, values, name)
    for slider, (start, end) in sorted(places.items(), key=lambda item: item[1], reverse=True):
        encoded = encoded[:start] + as_written(slider, values[slider]).encode() + encoded[end:]
    return encoded.decode()


def as_written(slider: str, value: float) -> str:
    """A slider's value as Camera Raw writes it: +0.35 stops, 5120 kelvins, else +12, -7 or 0.

    All but the exposure are cut toward zero, as the official scripts do.
    """
    if not math.isfinite(value):
        raise InputError(f"the slider {slider} cannot be set to {value}; give a finite number")
    if slider == "Exposure2012":
        return f"{value:+.2f}"
    whole = int(value)
    return f"{whole:+d}" if whole and slider != "Temperature" else str(whole)


def _added(values: Mapping[str, float], offsets: Mapping[str, float]) -> dict[str, float]:
    return {slider: values[slider] + offset for slider, offset in offsets.items()}


def _places(encoded: bytes, sliders: Iterable[str], name: str) -> dict[str, tuple[int, int]]:
    """Where the value of each slider stands between its quotes, in bytes.

    Only attributes of the `rdf:Description` elements right below `rdf:RDF` are the photograph's own sliders;
    the same names may occur deeper down, in looks and masks.
    """
    found: dict[str, tuple[int, int]] = {}
    for start in _descriptions(encoded, name):
        position = start + len("<rdf:Description")
        while attribute := _ATTRIBUTE.match(encoded, position):
            position = attribute.end()
            prefix, _, slider = attribute["name"].decode().partition(":")
            if prefix == "crs":
                start_of_value, end_of_value = attribute.span("value")
                found.setdefault(slider, (start_of_value + 1, end_of_value - 1))
    if lacking := [slider for slider in sliders if slider not in found]:
        raise InputError(
            f"{name} has no slider {' or '.join(lacking)} (crs:{lacking[0]}); "
            "save it again from Lightroom or Camera Raw, with process version 2012 or later"
        )
    return {slider: found[slider] for slider in sliders}


_ATTRIBUTE = re.compile(rb"""\s+(?P<name>[^\s=]+)\s*=\s*(?P<value>"[^"]*"|'[^']*')""")


def _descriptions(encoded: bytes, name: str) -> list[int]:
    """Where, in bytes, the tags of the topmost `rdf:Description` elements begin."""
    # Without namespaces: sidecars cut down by other tools often lack the declarations.
    parser = expat.ParserCreate("utf-8")
    path: list[str] = []
    starts: list[int] = []

    def start(tag: str, _: object) -> None:
        path.append(tag)
        if path[-2:] == ["rdf:RDF", "rdf:Description"]:
            starts.append(parser.CurrentByteIndex)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: path.pop()
    try:
        parser.Parse(encoded, True)
    except expat.ExpatError as error:
        raise InputError(f"{name} is broken XML ({error}); fetch or save it again") from error
    return starts


def _sidecars(folder: Path, out: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"the folder of sidecars {folder} does not exist")
    # macOS archives bring a hidden "._name.xmp" beside each file.
    found = sorted(path for path in folder.glob("*.xmp") if not path.name.startswith("."))
    if not found:
        raise InputError(f"the folder {folder} holds no sidecars (.xmp)")
    out.mkdir(parents=True, exist_ok=True)
    if out.samefile(folder):
        raise InputError(
            f"the new sidecars cannot go into {folder}, among the originals; name another folder"
        )
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a sidecar: it is not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, text: str) -> Path:
    try:
        with atomic.write(path) as temporary:
            temporary.write_bytes(text.encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    return path
