"""The house style: pictures that say what they are, and figures that move without a kernel."""

from __future__ import annotations

import base64
import io
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from cvpr21lib import figures
from cvpr21lib.errors import InputError


@pytest.fixture(scope="module")
def photo():
    return data.astronaut()


def markups(widget):
    return [slide.value for slide in widget.stack.children]


def image_in(markup):
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", markup)[1])))


def test_a_slider_shows_every_picture_with_its_caption_and_alternative_text(photo):
    labels = ["level 0", "level 1 & 2", "low-pass"]
    widget = figures.frames([photo, photo[::4, ::4], photo], labels, name="Level", alt="A <pilot>", start=1)
    assert len(widget.stack.children) == 3
    (slider,) = widget.sliders
    assert (slider.min, slider.max, slider.value) == (0, 2, 1)
    assert widget.stack.selected_index == 1
    assert [re.search(r'alt="([^"]*)"', markup)[1] for markup in markups(widget)] == [
        "A &lt;pilot&gt;: level 0",
        "A &lt;pilot&gt;: level 1 &amp; 2",
        "A &lt;pilot&gt;: low-pass",
    ]
    assert "<figcaption>level 1 &amp; 2</figcaption>" in markups(widget)[1]


def test_the_slider_is_linked_to_the_pictures_in_the_browser(photo):
    widget = figures.frames([photo, photo], ["a", "b"], name="Choice", alt="A pilot")
    (link,) = widget.links
    assert link.source == (widget.sliders[0], "value")
    assert link.target == (widget.stack, "selected_index")
    assert link.get_state()["_model_module"] == "@jupyter-widgets/controls"


def test_several_sliders_choose_among_all_combinations(photo):
    small = photo[::16, ::16]
    pictures = [np.roll(small, 4 * i + j, 1) for i in range(2) for j in range(3)]
    axes = {"row": ["r0", "r1"], "column": ["c0", "c1", "c2"]}
    widget = figures.panel(pictures, axes, alt="A pilot", start=(1, 2))
    for stack, children in ((widget.stack, 2), *((inner, 3) for inner in widget.stack.children)):
        assert len(stack.children) == children
    for i, inner in enumerate(widget.stack.children):
        assert inner.selected_index == 2
        for j, slide in enumerate(inner.children):
            assert f'alt="A pilot: r{i}, c{j}"' in slide.value
            np.testing.assert_array_equal(np.asarray(image_in(slide.value)), pictures[3 * i + j])
    row, column = widget.sliders
    targets = {id(link.target[0]): link.source[0] for link in widget.links}
    assert targets[id(widget.stack)] is row
    assert all(targets[id(inner)] is column for inner in widget.stack.children)
    with pytest.raises(InputError, match="5 pictures, 2 x 3 labels"):
        figures.panel(pictures[:5], axes, alt="A pilot")


def test_pictures_fit_the_column_and_never_lose_their_shape():
    wide = np.zeros((300, 1500, 3), np.float32)
    small = np.zeros((20, 100, 3), np.float32)
    widget = figures.frames([wide, small], ["wide", "small"], name="Size", alt="Black", width=720)
    assert [image_in(markup).size for markup in markups(widget)] == [(720, 144), (100, 20)]
    for markup in markups(widget):
        assert 'width="720" height="144"' in markup
        assert "max-width:100%;height:auto" in markup
    assert ["pixelated" in markup for markup in markups(widget)] == [False, True]


def test_nine_photographs_stay_below_700_kilobytes(photo):
    large = np.asarray(Image.fromarray(photo).resize((1440, 1440)))[:960]
    widget = figures.frames([large] * 9, list("123456789"), name="Step", alt="A pilot")
    assert sum(map(len, markups(widget))) < 700_000


def test_small_pictures_are_kept_exactly():
    values = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    still = figures.show(values, alt="Noise")
    np.testing.assert_array_equal(np.asarray(image_in(still.markup)), values)


def test_the_same_pictures_give_the_same_bytes(photo):
    def build():
        figure, axes = plt.subplots()
        axes.plot([1, 2, 3])
        widget = figures.frames([photo, figure], ["photo", "plot"], name="Same", alt="Twice")
        return markups(widget)

    assert build() == build()


def test_the_text_of_a_cell_says_what_would_be_seen(photo):
    labels = [f"a rather long label of step {step}" for step in range(9)]
    widget = figures.frames([photo] * 9, labels, name="Pyramid", alt="A pilot")
    text = widget._repr_mimebundle_()["text/plain"]
    assert text.startswith("Interactive figure: 9 frames, Pyramid (")
    assert all(label in text for label in labels)
    assert repr(figures.show(photo, alt="A pilot")) == "Figure: A pilot"


def test_a_wipe_goes_from_before_to_after(photo):
    small = photo[::8, ::8]
    widget = figures.before_after(small, 255 - small, name="Wipe", alt="A pilot, inverted", steps=5)
    shown = [np.asarray(image_in(markup)) for markup in markups(widget)]
    np.testing.assert_array_equal(shown[0], small)
    np.testing.assert_array_equal(shown[-1], 255 - small)
    np.testing.assert_array_equal(shown[2][:, :30], (255 - small)[:, :30])
    np.testing.assert_array_equal(shown[2][:, 34:], small[:, 34:])
    with pytest.raises(InputError, match="one size"):
        figures.before_after(small, small[:-1], name="Wipe", alt="A pilot")


def test_a_band_is_shown_around_grey():
    band = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0]).view(1, 1, 5).expand(3, 2, 5)
    shown = figures.signed(band, limit=1.0)
    assert shown.shape == (2, 5, 3)
    np.testing.assert_allclose(shown[0, :, 0], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(figures.signed(torch.zeros(3, 4, 4)), 0.5)


@pytest.mark.parametrize(
    "image",
    [
        torch.full((3, 4, 5), 0.5),
        torch.full((1, 4, 5), 0.5, dtype=torch.float16, requires_grad=True),
        torch.full((4, 5), 0.5, dtype=torch.float64),
        np.full((4, 5, 3), 0.5),
        np.full((4, 5), 0.5, np.float32),
        np.full((4, 5, 1), 0.5),
    ],
)
def test_tensors_and_arrays_are_read_alike(image):
    np.testing.assert_array_equal(figures.pixels(image), np.full((4, 5, 3), 0.5, np.float32))


def test_bytes_are_read_on_their_own_scale():
    assert figures.pixels(torch.full((3, 2, 2), 255, dtype=torch.uint8)).max() == 1
    assert figures.pixels(np.full((2, 2), 51, np.uint8)).max() == np.float32(0.2)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((4, 5, 2)), r"shape \(4, 5, 2\)"),
        (torch.zeros(2, 3, 4, 5), r"shape \(2, 3, 4, 5\)"),
        (np.zeros((0, 5, 3)), r"shape \(0, 5, 3\)"),
        (np.full((4, 5, 3), np.nan), "NaN"),
    ],
)
def test_what_is_no_image_is_named(image, complaint):
    with pytest.raises(InputError, match=complaint):
        figures.pixels(image)


def test_a_picture_without_alternative_text_is_refused(photo):
    with pytest.raises(InputError, match="alt is empty"):
        figures.show(photo, alt=" ")


def test_every_picture_needs_a_label(photo):
    with pytest.raises(InputError, match="2 pictures, 1 labels"):
        figures.frames([photo, photo], ["one"], name="Labels", alt="A pilot")


def test_a_grid_has_a_panel_an_image_and_fills_its_rows():
    figure = figures.grid(torch.rand(5, 3, 8, 12), list("abcde"), columns=3)
    panels = figure.axes
    assert len(panels) == 6
    assert [len(axis.images) for axis in panels] == [1, 1, 1, 1, 1, 0]
    assert [axis.get_title() for axis in panels][:5] == list("abcde")
    plt.close(figure)
    with pytest.raises(InputError, match="3 images and 1 titles"):
        figures.grid(torch.rand(3, 3, 8, 12), ["a"])


def test_figures_are_closed_once_rendered_and_drawings_are_png():
    plt.close("all")
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    drawing = figures.render(figure, width=360)
    assert Image.open(io.BytesIO(drawing)).format == "PNG"
    assert Image.open(io.BytesIO(drawing)).width == 720
    photographs = figures.render(figures.grid(torch.rand(2, 3, 8, 12)))
    assert Image.open(io.BytesIO(photographs)).format == "WEBP"
    assert plt.get_fignums() == []


def test_every_role_has_its_own_colour():
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)
    with matplotlib.rc_context():
        figures.style()
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(figures.COLOURS.values())
