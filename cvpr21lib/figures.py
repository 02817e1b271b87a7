"""The house style of the book: one colour a role, image grids, and figures that move without a kernel.

In a notebook::

    figures.style()                                           # once, at the top of a notebook
    figures.show(figures.grid(images, titles), alt=alt)       # a still picture with alternative text
    figures.frames(pictures, labels, name=name, alt=alt)      # a slider over precomputed frames
    figures.panel(pictures, {name: labels, ...}, alt=alt)     # several sliders over their product
    figures.before_after(photo, result, name=name, alt=alt)   # a slider that wipes one over the other

A picture is a torch tensor `(3, H, W)` or `(1, H, W)`, or an array `(H, W, 3)` or `(H, W)`, with values in
[0, 1] (what lies outside is clipped) or uint8. `show` and `frames` take matplotlib figures as well.
Only notebooks and the book import this module; it needs the extra `cvpr21lib[book]`.
"""

from __future__ import annotations

import base64
import html
import inspect
import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvpr21lib.errors import InputError

try:
    import ipywidgets
    import matplotlib.pyplot as plt
    from IPython.display import Code, Markdown
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        f"cvpr21lib.figures needs {error.name}, which comes with the book's dependencies: "
        "python -m pip install 'cvpr21lib[book]'"
    ) from error

Pixels: TypeAlias = NDArray[np.float32]
Picture: TypeAlias = Any  # a torch tensor, an array, or a matplotlib figure, as described above

COLOURS = {
    "method": "#0072B2",  # blue: the paper's method
    "baseline": "#E69F00",  # orange: what the paper compares with
    "ablation": "#CC79A7",  # pink: the method with its idea taken out
    "variant": "#56B4E9",  # sky blue: another setting of the method
    "target": "#009E73",  # green: the ground truth
    "failure": "#D55E00",  # vermilion: what does not work
    "reference": "#000000",  # black: a number from the paper or the official code
    "identity": "#8C8C8C",  # grey: doing nothing
}
"""One colour a role, the same in every chapter: Okabe and Ito's palette, safe for colour-blind readers."""

WIDTH = 720
"""Width in CSS pixels of the book's text column, and so of a picture."""


def style() -> None:
    """Give every following matplotlib figure the house style."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=list(COLOURS.values())),
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "figure.figsize": (7.2, 3.6),
            "font.size": 10,
            "grid.color": "#E5E5E5",
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )


def grid(
    images: Any, titles: Sequence[str] = (), *, columns: int | None = None, heading: str | None = None
) -> Figure:
    """Images side by side under their titles; `images` is a batch `(N, 3, H, W)` or a list of them."""
    panels = [pixels(image) for image in images]
    if not panels:
        raise InputError("figures.grid was given no images; give it at least one.")
    if titles and len(titles) != len(panels):
        raise InputError(f"figures.grid was given {len(panels)} images and {len(titles)} titles.")
    columns = min(columns or 4, len(panels))
    rows = math.ceil(len(panels) / columns)
    height, width = panels[0].shape[:2]
    cell = 7.2 / columns  # inches; 7.2 fills the text column
    title_height = 0.32 if titles else 0.05
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(7.2, rows * (cell * height / width + title_height) + (0.35 if heading else 0)),
        squeeze=False,
        layout="constrained",
    )
    if heading:
        figure.suptitle(heading)
    for position, axis in enumerate(axes.flat):
        axis.axis("off")
        if position < len(panels):
            axis.imshow(panels[position])
            axis.set_title(titles[position] if titles else "", fontsize="small")
    return figure


def signed(band: Any, limit: float | None = None) -> Pixels:
    """Show a signed band `(3, H, W)` around mid-grey: 0 becomes 0.5, and ± `limit` white and black.

    Returns `(H, W, 3)`. Without a `limit`, the 99.5th percentile of the magnitude is taken; give one to
    compare bands.
    """
    values = _channels_last(band).astype(np.float32)
    if limit is None:
        limit = max(float(np.quantile(np.abs(values), 0.995)), 1e-6)
    if limit <= 0:
        raise InputError(f"figures.signed: limit is {limit}; it must be above 0.")
    return pixels(0.5 + values / (2 * limit))


def show(picture: Picture, *, alt: str, caption: str = "", width: int = WIDTH) -> Still:
    """A still picture with alternative text, for the last line of a cell. A matplotlib figure is closed."""
    return Still(_figure_html(picture, alt, caption, width), alt)


def frames(
    pictures: Sequence[Picture],
    labels: Sequence[str],
    *,
    name: str,
    alt: str,
    start: int = 0,
    width: int = WIDTH,
) -> Frames:
    """A slider called `name` over precomputed pictures, linked in the browser: it moves without a kernel.

    Each picture is captioned by its label, and described to those who cannot see it by "`alt`: label".
    Pictures wider than `width` are reduced to it; smaller ones are enlarged by the browser, and below half
    the width their pixels stay visible as squares.
    """
    return panel(pictures, {name: labels}, alt=alt, start=(start,), width=width)


def panel(
    pictures: Sequence[Picture],
    axes: Mapping[str, Sequence[str]],
    *,
    alt: str,
    start: Sequence[int] | None = None,
    width: int = WIDTH,
) -> Frames:
    """One slider for each of the named `axes`, over one precomputed picture for every combination.

    `axes` maps a slider's name to the labels of its positions; the pictures come in the order of
    `itertools.product`, the last axis fastest. Everything else is as in `frames`.
    """
    sizes = tuple(len(labels) for labels in axes.values())
    start = tuple(start) if start is not None else (0,) * len(sizes)
    there = len(start) == len(sizes) and all(0 <= at < size for at, size in zip(start, sizes, strict=True))
    if len(pictures) != math.prod(sizes) or not sizes or not there:
        raise InputError(
            f"figures: {len(pictures)} pictures, {' x '.join(map(str, sizes)) or 0} labels, start {start}; "
            "give a picture for each combination of labels, and start at one of them."
        )
    slides = [
        _figure_html(picture, f"{alt}: {', '.join(chosen)}", ", ".join(chosen), width)
        for picture, chosen in zip(pictures, itertools.product(*axes.values()), strict=True)
    ]
    return Frames(slides, axes, start)


def before_after(
    before: Picture,
    after: Picture,
    *,
    name: str,
    alt: str,
    labels: tuple[str, str] = ("before", "after"),
    steps: int = 9,
    width: int = WIDTH,
) -> Frames:
    """A slider that wipes `after` over `before` from the left in `steps` frames; both must have one size."""
    left, right = _resized(pixels(after), width), _resized(pixels(before), width)
    if left.shape != right.shape:
        raise InputError(
            f"figures.before_after '{name}': before is {right.shape[1]}x{right.shape[0]} px and after is "
            f"{left.shape[1]}x{left.shape[0]} px; give two pictures of one size."
        )
    fractions = np.linspace(0, 1, steps)
    captions = [_wipe_label(labels, fraction) for fraction in fractions]
    pictures = [_wiped(left, right, fraction) for fraction in fractions]
    return frames(pictures, captions, name=name, alt=alt, start=steps // 2, width=width)


def source(*things: Any) -> Code:
    """The library's own lines that define functions, methods or classes, highlighted; no copies."""
    return Code("\n\n".join(textwrap.dedent(inspect.getsource(thing)) for thing in things), language="python")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markdown:
    """A table; the first column is text, the others are aligned to the right."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def render(figure: Figure, width: int = WIDTH) -> bytes:
    """A matplotlib figure as image bytes, two pixels a CSS pixel; the figure is closed.

    Drawings become PNG. A figure that shows images becomes WebP, which is several times smaller.
    """
    photographic = any(axis.images for axis in figure.axes)
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        dpi=2 * width / figure.get_size_inches()[0],
        metadata={"Software": None},
        pil_kwargs={"compress_level": 0 if photographic else 9},  # most of the time of a WebP otherwise
    )
    plt.close(figure)
    if not photographic:
        return buffer.getvalue()
    return _webp(Image.open(buffer).convert("RGB"), quality=85)


def pixels(image: Any) -> Pixels:
    """`(H, W, 3)` float32 in [0, 1] from a tensor `(C, H, W)` or an array `(H, W[, C])`, C being 1 or 3."""
    values = _channels_last(image)
    if values.dtype == np.uint8:
        values = values / np.float32(255)
    if not np.isfinite(values).all():
        raise InputError("figures: the picture holds NaN or infinite values, which have no colour.")
    return np.broadcast_to(np.clip(values, 0, 1).astype(np.float32), (*values.shape[:2], 3))


class Still:
    """A picture with alternative text, as a notebook shows it."""

    def __init__(self, markup: str, alt: str) -> None:
        self.markup = markup
        self.alt = alt

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"


class Frames(ipywidgets.VBox):
    """Sliders above the picture they select; without JavaScript, the cell's text says what would be seen."""

    def __init__(
        self, slides: Sequence[str], axes: Mapping[str, Sequence[str]], start: Sequence[int]
    ) -> None:
        self.sliders = [
            ipywidgets.IntSlider(
                value=at,
                min=0,
                max=len(labels) - 1,
                readout=False,
                layout=ipywidgets.Layout(flex="1", width="auto", min_width="0"),
            )
            for at, labels in zip(start, axes.values(), strict=True)
        ]
        self.links: list[Any] = []
        self.stack = self._stacked(slides, 0)
        described = " × ".join(f"{name} ({'; '.join(labels)})" for name, labels in axes.items())
        self.summary = f"Interactive figure: {len(slides)} frames, {described}"
        bars = [self._bar(name, slider) for name, slider in zip(axes, self.sliders, strict=True)]
        super().__init__([*bars, self.stack], layout=ipywidgets.Layout(width="100%"))
        self.add_class("cvpr21-frames")

    def _stacked(self, slides: Sequence[str], axis: int) -> ipywidgets.Widget:
        """The slides of one combination of the first `axis` sliders: a slide, or a stack of stacks."""
        full = ipywidgets.Layout(width="100%", height="auto", margin="0")
        if axis == len(self.sliders):
            return ipywidgets.HTML(slides[0], layout=full)
        slider = self.sliders[axis]
        each = len(slides) // (slider.max + 1)
        children = [self._stacked(slides[i : i + each], axis + 1) for i in range(0, len(slides), each)]
        stack = ipywidgets.Stack(children, selected_index=slider.value, layout=full)
        self.links.append(ipywidgets.jslink((slider, "value"), (stack, "selected_index")))
        return stack

    def _bar(self, name: str, slider: ipywidgets.IntSlider) -> ipywidgets.HBox:
        # Not the slider's `description`: in a page with MathJax 3, ipywidgets stops at typesetting one.
        width = "9em" if len(self.sliders) > 1 else "auto"
        layout = ipywidgets.Layout(flex="none", width=width)
        heading = ipywidgets.HTML(f"<b>{html.escape(name)}</b>", layout=layout)
        return ipywidgets.HBox([heading, slider], layout=ipywidgets.Layout(max_width=f"{WIDTH}px"))

    def __repr__(self) -> str:
        return self.summary

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": self.summary}  # ipywidgets cuts it at 110 characters


def _figure_html(picture: Picture, alt: str, caption: str, width: int) -> str:
    if not alt.strip():
        raise InputError("figures: alt is empty; say in a sentence what the picture shows.")
    if isinstance(picture, Figure):
        data = render(picture, width)
        pixelated = False
    else:
        values = _resized(pixels(picture), width)
        pixelated = values.shape[1] * 2 <= width
        data = _encoded(values, lossless=pixelated)
    with Image.open(io.BytesIO(data)) as image:
        kind, height = Image.MIME[str(image.format)], round(width * image.height / image.width)
    rendering = "image-rendering:pixelated;" if pixelated else ""
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="cvpr21-figure" style="margin:0;line-height:1.4"><img alt="{html.escape(alt)}" '
        f'width="{width}" height="{height}" style="max-width:100%;height:auto;{rendering}" '
        f'src="data:{kind};base64,{base64.b64encode(data).decode()}">{below}</figure>'
    )


def _channels_last(image: Any) -> NDArray[Any]:
    if hasattr(image, "detach"):
        tensor = image.detach().cpu()
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        if values.ndim == 3:
            values = values.transpose(1, 2, 0)
    else:
        values = np.asarray(image)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3) or 0 in values.shape:
        raise InputError(
            f"figures: cannot show an image of shape {tuple(np.shape(image))}; "
            "expected a tensor (3, H, W) or (1, H, W), or an array (H, W, 3) or (H, W)."
        )
    return values


def _resized(values: Pixels, width: int) -> Pixels:
    if values.shape[1] <= width:
        return values
    height = round(width * values.shape[0] / values.shape[1])
    image = Image.fromarray(_uint8(values)).resize((width, max(height, 1)), Image.Resampling.LANCZOS)
    return pixels(np.asarray(image))


def _encoded(values: Pixels, *, lossless: bool) -> bytes:
    image = Image.fromarray(_uint8(values))
    if not lossless:
        return _webp(image, quality=80)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _webp(image: Image.Image, *, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _uint8(values: Pixels) -> NDArray[np.uint8]:
    return (values * 255 + 0.5).astype(np.uint8)


def _wiped(left: Pixels, right: Pixels, fraction: float) -> Pixels:
    border = round(fraction * left.shape[1])
    wiped = np.concatenate([left[:, :border], right[:, border:]], axis=1)
    if 0 < border < left.shape[1]:
        wiped[:, border - 1 : border + 1] = 1.0
    return wiped


def _wipe_label(labels: tuple[str, str], fraction: float) -> str:
    before, after = labels
    if fraction in (0, 1):
        return after if fraction else before
    return f"left {fraction:.0%}: {after}; right: {before}"
