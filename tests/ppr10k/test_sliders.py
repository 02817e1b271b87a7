"""The approximate renderer: each slider's direction and steadiness, and what it leaves alone."""

from dataclasses import fields, replace

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import metrics, sliders, xmp
from cvpr21lib.ppr10k.sliders import Sliders, render
from tests.conftest import photograph

PHOTOGRAPH = photograph(0, 40, 52) / 255
GREYS = np.repeat(np.linspace(0, 1, 101)[None, :, None], 3, axis=2)
STEPS = {
    "temperature": (-2500, -500, -50, 0, 50, 500, 4000, 40000),
    "tint": (-150, -40, -10, 0, 10, 40, 150),
    "exposure": (-5, -1, -0.1, 0, 0.1, 1, 5),
    "highlights": (-100, -35, -5, 0, 5, 35, 100),
    "contrast": (-100, -30, -5, 0, 5, 30, 100),
    "saturation": (-100, -30, -5, 0, 5, 30, 100),
}


def rendered(image: np.ndarray, **moved: float) -> np.ndarray:
    return render(image, Sliders(**moved))


def series(slider: str, image: np.ndarray) -> list[np.ndarray]:
    return [rendered(image, **{slider: step}) for step in STEPS[slider]]


def luma(image: np.ndarray) -> np.ndarray:
    return image @ [0.2126, 0.7152, 0.0722]


def increases(values: list[float]) -> bool:
    return bool((np.diff(values) > 0).all())


# --- all sliders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_sliders_at_zero_change_nothing_and_give_a_copy(kind):
    image = PHOTOGRAPH.astype(kind)
    same = render(image, Sliders(as_shot=3200))
    np.testing.assert_array_equal(same, image)
    assert same is not image
    assert not np.shares_memory(same, image)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("slider", STEPS)
def test_values_stay_in_range_and_keep_their_type(slider, kind):
    extremes = np.array(np.meshgrid([0, 0.5, 1], [0, 0.5, 1], [0, 0.5, 1])).reshape(3, -1).T[None]
    for image in (PHOTOGRAPH.astype(kind), extremes.astype(kind)):
        for changed in series(slider, image):
            assert changed.dtype == kind
            assert changed.shape == image.shape
            assert changed.min() >= 0
            assert changed.max() <= 1


def test_all_six_together_stay_in_range():
    rng = np.random.default_rng(0)
    for _ in range(20):
        changed = render(PHOTOGRAPH, Sliders.from_offsets(xmp.offsets(rng)))
        assert 0 <= changed.min() <= changed.max() <= 1


@pytest.mark.parametrize("slider", STEPS)
def test_a_small_move_changes_little(slider):
    width = STEPS[slider][-1] - STEPS[slider][0]
    changed = rendered(PHOTOGRAPH, **{slider: 1e-6 * width})
    assert 0 < np.abs(changed - PHOTOGRAPH).max() < 1e-3


@pytest.mark.parametrize("slider", ["exposure", "highlights", "contrast", "saturation"])
def test_greys_stay_grey(slider):
    for changed in series(slider, GREYS):
        np.testing.assert_allclose(np.ptp(changed, axis=-1), 0, atol=1e-12)


@pytest.mark.parametrize("slider", ["exposure", "highlights", "contrast"])
def test_a_brighter_grey_stays_the_brighter_one(slider):
    for changed in series(slider, GREYS):
        assert (np.diff(changed[0, :, 0]) >= 0).all()


def test_the_photograph_given_is_not_changed_and_may_be_any_view():
    image = PHOTOGRAPH[::-2, ::3]
    before = image.copy()
    moved = {slider: steps[1] for slider, steps in STEPS.items()}
    changed = rendered(image, **moved)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(changed, rendered(before, **moved))


# --- each slider ------------------------------------------------------------------------------------------


def test_more_kelvins_are_warmer():
    for image in (PHOTOGRAPH, GREYS[:, 20:80]):
        warmth = [changed[..., 0].mean() - changed[..., 2].mean() for changed in series("temperature", image)]
        assert increases(warmth)
    yellowness = [metrics.mean_ab(changed)[1] for changed in series("temperature", PHOTOGRAPH)]
    assert increases(yellowness)


def test_more_tint_is_more_magenta():
    redness = [metrics.mean_ab(changed)[0] for changed in series("tint", PHOTOGRAPH)]
    assert increases(redness)
    magenta = rendered(GREYS[:, 50:51], tint=10)[0, 0]
    assert magenta[1] < min(magenta[0], magenta[2])


def test_the_published_range_of_white_balance_moves_a_grey_by_a_visible_amount():
    grey = GREYS[:, 50:51]
    for moved in ({"temperature": 500}, {"temperature": -500}, {"tint": 10}, {"tint": -10}):
        assert 1.5 < metrics.delta_e(rendered(grey, **moved), grey) < 10


def test_white_balance_leaves_the_luminance_of_a_grey_almost_alone():
    for moved in ({"temperature": 500}, {"temperature": -500}, {"tint": 10}, {"tint": -10}):
        matrix = sliders.white_balance(moved.get("temperature", 0), moved.get("tint", 0), 5500)
        assert (metrics.XYZ_FROM_RGB @ matrix).sum(1)[1] == pytest.approx(1, abs=0.01)


def test_a_change_of_light_is_undone_by_the_way_back():
    image = 0.2 + 0.5 * PHOTOGRAPH
    there = rendered(image, temperature=700, as_shot=5000)
    np.testing.assert_allclose(rendered(there, temperature=-700, as_shot=5700), image, atol=1e-12)


def test_the_same_kelvins_weigh_more_under_a_warm_light():
    grey = GREYS[:, 50:51]
    tungsten, shade = (rendered(grey, temperature=500, as_shot=kelvins) for kelvins in (3000, 8000))
    assert np.ptp(tungsten) > 3 * np.ptp(shade)


def test_a_stop_doubles_the_light():
    encoded = GREYS[:, 1:70]
    light = [
        np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
        for v in (encoded, rendered(encoded, exposure=1))
    ]
    np.testing.assert_allclose(light[1], 2 * light[0], rtol=1e-6)


def test_more_exposure_darkens_no_pixel():
    for darker, brighter in zip(
        series("exposure", PHOTOGRAPH)[:-1], series("exposure", PHOTOGRAPH)[1:], strict=True
    ):
        assert (brighter >= darker).all()
        assert brighter.mean() > darker.mean()


def test_highlights_lift_or_lower_the_bright_half_and_leave_the_dark_one():
    bright = luma(PHOTOGRAPH) > 0.5
    assert 0.1 < bright.mean() < 0.9
    changed = series("highlights", PHOTOGRAPH)
    assert increases([luma(image)[bright].mean() for image in changed])
    for image in changed:
        np.testing.assert_array_equal(image[~bright], PHOTOGRAPH[~bright])


def test_highlights_move_white_by_at_most_0_23_and_never_swap_two_brightnesses():
    assert rendered(GREYS[:, 100:], highlights=-100)[0, 0, 0] == pytest.approx(1 - 0.45 / 2)
    overexposed = rendered(GREYS, exposure=4, highlights=-100)
    assert (np.diff(overexposed[0, :, 0]) >= 0).all()


def test_lowered_highlights_bring_back_what_the_exposure_pushed_out():
    ramp = GREYS[:, 70:90]
    blown = rendered(ramp, exposure=1)
    assert (blown == 1).any()
    saved = rendered(ramp, exposure=1, highlights=-100)
    assert len(np.unique(saved)) > len(np.unique(blown))


def test_more_contrast_spreads_the_greys_about_the_middle():
    assert increases([changed.std() for changed in series("contrast", GREYS)])
    for changed in series("contrast", GREYS):
        np.testing.assert_allclose(changed[0, [0, 50, 100], 0], [0, 0.5, 1], atol=1e-12)


def test_more_saturation_is_more_colourful_and_none_is_grey():
    chroma = [np.ptp(changed, axis=-1).mean() for changed in series("saturation", PHOTOGRAPH)]
    assert increases(chroma)
    assert chroma[0] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(luma(rendered(PHOTOGRAPH, saturation=-60)), luma(PHOTOGRAPH), atol=1e-12)


# --- offsets and bad input --------------------------------------------------------------------------------


def test_a_sidecar_s_offsets_become_sliders():
    offsets = xmp.offsets(np.random.default_rng(0))
    moved = Sliders.from_offsets(offsets, as_shot=4800)
    assert moved == Sliders(
        offsets["Temperature"],
        offsets["Tint"],
        offsets["Exposure2012"],
        offsets["Highlights2012"],
        offsets["Contrast2012"],
        offsets["Saturation"],
        4800,
    )


def test_a_slider_that_is_not_rendered_is_named():
    with pytest.raises(InputError, match="no such slider here: clarity; there are contrast, exposure"):
        Sliders.from_offsets({"Clarity2012": 5, "Tint": 1})


@pytest.mark.parametrize("slider", [field.name for field in fields(Sliders)])
@pytest.mark.parametrize("value", [-60000, 60000, float("nan")])
def test_a_slider_off_its_scale_is_named(slider, value):
    name = {"temperature": "light's temperature", "as_shot": "light's temperature"}.get(slider, slider)
    with pytest.raises(InputError, match=f"{name} is "):
        replace(Sliders(), **{slider: value})


def test_a_light_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="no light has 2500 K and a tint of 140"):
        Sliders(temperature=-500, as_shot=3000, tint=140)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((4, 4), np.float32), r"shape \(4, 4\)"),
        (np.zeros((3, 4, 4), np.float32), r"shape \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.float32), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), "uint8"),
        (np.full((4, 4, 3), 1.5), r"they span \[1.5, 1.5\]"),
        (np.full((4, 4, 3), -0.1), r"they span \[-0.1, -0.1\]"),
        (np.full((4, 4, 3), np.nan), "they span"),
    ],
)
def test_what_is_not_an_image_in_range_is_named(image, complaint):
    with pytest.raises(InputError, match=complaint):
        rendered(image, exposure=1)
