"""Camera Raw sidecars: what is rewritten, what is left alone, and what is refused."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import xmp

SIDECAR = """\ufeff<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\r
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 5.6">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <!-- crs:Tint="+99" -->
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/" dc:creator="Zoë &gt; &quot;Z&quot;"/>
  <rdf:Description rdf:about=""
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
   crs:Version="13.0"
   crs:WhiteBalance="As Shot"
   crs:Temperature="5350"
   crs:Tint='+12'
   crs:Saturation="0" crs:Vibrance="+3"
   crs:Exposure2012 = "-0.35"
   crs:Contrast2012="0"
   crs:Highlights2012="-20"
   crs:ToneCurvePV2012="">
   <crs:Look>
    <rdf:Description crs:Name="Adobe Color" crs:Tint="+77" crs:Dehaze="+5"/>
   </crs:Look>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
VALUES = {
    "Temperature": 5350.0,
    "Tint": 12.0,
    "Exposure2012": -0.35,
    "Highlights2012": -20.0,
    "Contrast2012": 0.0,
    "Saturation": 0.0,
}


@pytest.fixture
def sidecars(tmp_path: Path) -> Path:
    folder = tmp_path / "xmp_source"
    folder.mkdir()
    for name in ("7_0", "7_1"):
        (folder / f"{name}.xmp").write_bytes(SIDECAR.encode())
    (folder / "._7_0.xmp").write_bytes(b"Mac OS X")
    return folder


# --- one sidecar ------------------------------------------------------------------------------------------


def test_the_photograph_s_own_sliders_are_read():
    assert xmp.read(SIDECAR, xmp.RANGES) == VALUES


def test_only_the_values_asked_for_are_changed():
    changed = xmp.rewrite(SIDECAR, {"Tint": -3.7, "Exposure2012": 1})
    assert changed == SIDECAR.replace("'+12'", "'-3'").replace('"-0.35"', '"+1.00"')


def test_what_is_written_is_read_again():
    values = {
        slider: float(value) for slider, value in zip(xmp.RANGES, (4200, -7, 0.25, 33, -12, 8), strict=True)
    }
    assert xmp.read(xmp.rewrite(SIDECAR, values), values) == values


def test_the_same_values_leave_the_sidecar_as_it_was():
    assert xmp.rewrite(SIDECAR, VALUES) == SIDECAR


def test_a_rewritten_sidecar_is_still_xml():
    text = xmp.rewrite(SIDECAR, {"Temperature": 6000})
    root = ElementTree.fromstring(text.removeprefix("\ufeff").encode())
    crs = "{http://ns.adobe.com/camera-raw-settings/1.0/}"
    found = [each.attrib[f"{crs}Temperature"] for each in root.iter() if f"{crs}Temperature" in each.attrib]
    assert found == ["6000"]


@pytest.mark.parametrize(
    ("slider", "value", "expected"),
    [
        ("Temperature", 5120.7, "5120"),
        ("Tint", 4.9, "+4"),
        ("Tint", -0.9, "0"),
        ("Tint", -4.9, "-4"),
        ("Saturation", 0.0, "0"),
        ("Exposure2012", 0.649, "+0.65"),
        ("Exposure2012", -1.0, "-1.00"),
        ("Exposure2012", 0.0, "+0.00"),
    ],
)
def test_values_have_camera_raw_s_format(slider, value, expected):
    assert xmp.as_written(slider, value) == expected


# --- offsets ----------------------------------------------------------------------------------------------


def test_the_published_offsets_fill_their_ranges():
    rng = np.random.default_rng(0)
    draws = [xmp.offsets(rng) for _ in range(2000)]
    for slider, (low, high) in xmp.RANGES.items():
        values = np.array([draw[slider] for draw in draws])
        width = high - low
        assert low <= values.min() < low + 0.01 * width
        assert high - 0.01 * width < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * width


def test_the_six_sliders_are_drawn_independently():
    rng = np.random.default_rng(0)
    draws = np.array([list(xmp.offsets(rng).values()) for _ in range(2000)])
    correlation = np.corrcoef(draws.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.1


@pytest.mark.parametrize("highlights", [-100, -85, -10, 0, 40, 85, 100])
def test_paired_offsets_keep_the_target_s_highlights_on_their_scale(highlights):
    rng = np.random.default_rng(0)
    drawn = np.array([xmp.paired_offsets(rng, highlights)["Highlights2012"] for _ in range(500)])
    assert np.abs(drawn).max() <= 30
    assert np.abs(highlights - drawn).max() <= 100
    assert np.ptp(drawn) > 25


# --- folders ----------------------------------------------------------------------------------------------


def test_five_versions_are_written_beside_nothing_and_the_originals_stay(sidecars, tmp_path):
    made = xmp.augment(sidecars, tmp_path / "new" / "xmp_aug")
    names = [f"7_{photo}_{version}.xmp" for photo in (0, 1) for version in range(1, 6)]
    assert [path.name for path in made] == names
    assert sorted(path.name for path in (tmp_path / "new" / "xmp_aug").iterdir()) == names
    assert (sidecars / "7_0.xmp").read_bytes() == SIDECAR.encode()
    assert len(list(sidecars.iterdir())) == 3


def test_a_version_lies_within_the_published_ranges_and_nothing_else_moves(sidecars, tmp_path):
    for path in xmp.augment(sidecars, tmp_path / "out"):
        text = path.read_bytes().decode()
        for slider, value in xmp.read(text, xmp.RANGES).items():
            low, high = xmp.RANGES[slider]
            assert low - 1 <= value - VALUES[slider] <= high + 1, slider
        assert text != SIDECAR
        assert xmp.rewrite(text, VALUES) == SIDECAR


def test_versions_depend_on_seed_name_and_number_alone(sidecars, tmp_path):
    first = {path.name: path.read_bytes() for path in xmp.augment(sidecars, tmp_path / "first", seed=3)}
    (sidecars / "7_0.xmp").unlink()
    again = {
        path.name: path.read_bytes() for path in xmp.augment(sidecars, tmp_path / "again", versions=7, seed=3)
    }
    assert len(set(first.values())) == 10
    assert len(again) == 7
    assert all(again[name] == first[name] for name in again.keys() & first.keys())
    other = xmp.augment(sidecars, tmp_path / "other", seed=4)
    assert all(path.read_bytes() != first[path.name] for path in other)


def test_a_pair_s_offsets_go_to_the_source_and_but_for_the_white_balance_from_the_target(sidecars, tmp_path):
    targets = tmp_path / "xmp_target_a"
    targets.mkdir()
    retouched = {**VALUES, "Tint": 20.0, "Exposure2012": 0.4, "Highlights2012": -90.0, "Contrast2012": 15.0}
    for name in ("7_0", "7_1", "8_0"):
        (targets / f"{name}.xmp").write_bytes(xmp.rewrite(SIDECAR, retouched).encode())
    made = xmp.augment_pairs(sidecars, targets, tmp_path / "source", tmp_path / "target", versions=20)
    assert len(made) == 40
    for ours, theirs in made:
        assert ours.name == theirs.name
        source, target = (xmp.read(path.read_bytes().decode(), VALUES) for path in (ours, theirs))
        for slider in ("Temperature", "Tint", "Saturation"):
            assert target[slider] == retouched[slider]
        for slider, (low, high) in xmp.PAIRED_RANGES.items():
            assert low - 1 <= source[slider] - VALUES[slider] <= high + 1
        for slider, unit in (("Exposure2012", 0.01), ("Highlights2012", 1), ("Contrast2012", 1)):
            taken, added = retouched[slider] - target[slider], source[slider] - VALUES[slider]
            assert abs(taken - added) <= 1.001 * unit + 1e-9
        assert abs(target["Highlights2012"]) <= 100
        assert source["Saturation"] == VALUES["Saturation"]


# --- bad input --------------------------------------------------------------------------------------------


def test_a_sidecar_without_a_slider_is_named_with_the_slider(sidecars, tmp_path):
    lacking = SIDECAR.replace("crs:Highlights2012", "crs:Highlights")
    (sidecars / "7_1.xmp").write_bytes(lacking.encode())
    with pytest.raises(InputError, match=r"7_1\.xmp has no slider Highlights2012 \(crs:Highlights2012\)"):
        xmp.augment(sidecars, tmp_path / "out")


def test_a_slider_of_a_look_is_not_the_photograph_s():
    with pytest.raises(InputError, match="no slider Dehaze"):
        xmp.rewrite(SIDECAR, {"Dehaze": 5})


@pytest.mark.parametrize(
    "broken",
    [SIDECAR[: len(SIDECAR) // 2], SIDECAR.replace("</rdf:RDF>", ""), "", SIDECAR.replace("'+12'", "+12")],
    ids=["cut short", "unclosed", "empty", "unquoted"],
)
def test_broken_xml_is_named(sidecars, tmp_path, broken):
    (sidecars / "7_1.xmp").write_bytes(broken.encode())
    with pytest.raises(InputError, match=r"7_1\.xmp is broken XML"):
        xmp.augment(sidecars, tmp_path / "out")


def test_a_value_that_is_not_a_number_is_named(sidecars, tmp_path):
    (sidecars / "7_0.xmp").write_bytes(SIDECAR.replace('"5350"', '"warm"').encode())
    with pytest.raises(InputError, match=r"7_0\.xmp: its slider Temperature is 'warm'"):
        xmp.augment(sidecars, tmp_path / "out")


def test_what_is_not_text_is_named(sidecars, tmp_path):
    (sidecars / "7_0.xmp").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"7_0\.xmp is not a sidecar"):
        xmp.augment(sidecars, tmp_path / "out")


def test_a_value_that_cannot_be_written_is_named():
    with pytest.raises(InputError, match="slider Tint cannot be set to nan"):
        xmp.rewrite(SIDECAR, {"Tint": float("nan")})


def test_the_originals_folder_is_refused_as_output(sidecars):
    with pytest.raises(InputError, match="among the originals"):
        xmp.augment(sidecars, sidecars.parent / "." / sidecars.name)


def test_missing_folders_sidecars_and_targets_are_named(sidecars, tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        xmp.augment(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no sidecars"):
        xmp.augment(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "empty" / "7_0.xmp").write_bytes(SIDECAR.encode())
    with pytest.raises(InputError, match=r"7_1\.xmp has no target of the same name in .*empty"):
        xmp.augment_pairs(sidecars, tmp_path / "empty", tmp_path / "a", tmp_path / "b")
