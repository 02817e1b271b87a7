"""A folder of results against targets and masks, on a miniature of the validation set."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import metrics
from cvpr21lib.ppr10k.evaluate import evaluate
from tests.conftest import photograph

NAMES = ("9_0", "9_1", "10_0", "10_1", "10_2", "1357_0")
SIZE = (24, 36)


def target(name: str) -> np.ndarray:
    return photograph(NAMES.index(name), *SIZE)


def result(name: str) -> np.ndarray:
    tinted = target(name) * [1.05, 1, 0.95] + 3 * NAMES.index(name)
    return np.clip(tinted, 0, 255).astype(np.uint8)


def mask(name: str) -> np.ndarray:
    people = np.zeros(SIZE, np.uint8)
    people[6:, 10 : 15 + NAMES.index(name)] = 255
    return people


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Results (PNG), targets (8-bit TIFF) and masks (PNG) as the official code leaves and reads them."""
    results, targets, masks = (tmp_path / name for name in ("results", "target_a", "masks"))
    for folder in (results, targets, masks):
        folder.mkdir()
    for name in NAMES:
        Image.fromarray(result(name)).save(results / f"{name}.png")
        tifffile.imwrite(targets / f"{name}.tif", target(name), photometric="rgb")
        Image.fromarray(mask(name)).save(masks / f"{name}.png")
    return results, targets, masks


def expected(names=NAMES, masked=True) -> dict[str, float]:
    return metrics.summary(
        {name: metrics.measure(result(name), target(name), mask(name) if masked else None) for name in names}
    )


def test_a_folder_scores_what_its_photographs_score(folders):
    report = evaluate(*folders)
    assert report.numbers == pytest.approx(expected(), abs=1e-12)
    assert sorted(report.photographs) == sorted(NAMES)
    assert (report.failed, report.missing) == ({}, ())


def test_photographs_are_paired_by_name_whatever_else_lies_there(folders):
    results, targets, masks = folders
    for folder in (targets, masks):
        Image.fromarray(target("9_0")).save(folder / "0_0.png")  # sorts before all others
        (folder / "notes.txt").write_text("not a photograph")
        (folder / "._9_0.png").write_bytes(b"Mac OS X")
    report = evaluate(results, targets, masks)
    assert report.numbers == pytest.approx(expected(), abs=1e-12)
    assert report.missing == ("0_0",)


def test_any_readable_suffix_will_do(folders):
    results, targets, masks = folders
    (results / "9_0.png").unlink()
    Image.fromarray(result("9_0")).save(results / "9_0.TIFF")
    assert evaluate(results, targets, masks).numbers == pytest.approx(expected(), abs=1e-12)


def test_without_masks_the_human_centred_columns_are_left_out(folders):
    report = evaluate(*folders[:2])
    assert report.numbers == pytest.approx(expected(masked=False), abs=1e-12)
    assert "HC" not in report.table()


def test_sixteen_bit_results_score_as_the_eight_bits_they_would_be_saved_with(folders):
    results, targets, masks = folders
    for name in NAMES:
        (results / f"{name}.png").unlink()
        deep = result(name).astype(np.uint32) * 257 + 100  # less than half a step of 8 bits
        tifffile.imwrite(
            results / f"{name}.tif", np.minimum(deep, 65535).astype(np.uint16), photometric="rgb"
        )
    assert evaluate(results, targets, masks).numbers == pytest.approx(expected(), abs=1e-12)


def test_sixteen_bit_targets_are_brought_to_eight_bits_too(folders):
    results, targets, masks = folders
    for name in NAMES:
        tifffile.imwrite(targets / f"{name}.tif", target(name).astype(np.uint16) * 257, photometric="rgb")
    assert evaluate(results, targets, masks).numbers == pytest.approx(expected(), abs=1e-12)


@pytest.mark.parametrize("fill", [0, 255])
def test_empty_and_full_masks_are_measured(folders, fill):
    results, targets, masks = folders
    for name in NAMES:
        Image.fromarray(np.full(SIZE, fill, np.uint8)).save(masks / f"{name}.png")
    numbers = evaluate(results, targets, masks).numbers
    gain = 0 if fill else 20 * np.log10(2)
    assert numbers["psnr_hc"] == pytest.approx(numbers["psnr"] + gain, abs=1e-9)


# --- the table --------------------------------------------------------------------------------------------


def test_the_table_has_the_paper_s_columns_and_the_target_s_own_mglc(folders):
    head, _, row = evaluate(*folders).table().splitlines()[:3]
    cells = [cell.strip() for cell in head.strip("| ").split("|")]
    assert cells == [
        "PSNR (dB) ↑",
        "ΔE_ab ↓",
        "PSNR-HC (dB) ↑",
        "ΔE-HC ↓",
        "MGLC ↓",
        "target's MGLC",
        "MGLC's distance to it ↓",
    ]
    assert [cell.strip() for cell in row.strip("| ").split("|")] == [
        "results",
        *(f"{value:.2f}" for value in expected().values()),
    ]


def test_the_table_says_how_much_was_evaluated(folders):
    assert "6 photographs in 3 groups" in evaluate(*folders).table()


def test_the_table_can_have_a_row_for_every_photograph(folders):
    lines = evaluate(*folders).table(each=True).splitlines()
    measures = metrics.measure(result("10_1"), target("10_1"), mask("10_1"))
    (row,) = (line for line in lines if line.startswith("| 10_1 "))
    assert f"| {measures.psnr:.2f} | {measures.delta_e:.2f} | {measures.psnr_hc:.2f} |" in row


def test_a_perfect_folder_has_infinite_psnr(folders):
    _, targets, masks = folders
    report = evaluate(targets, targets, masks)
    assert report.numbers["psnr"] == float("inf")
    assert report.numbers["mglc_gap"] == 0
    assert "| target_a | inf | 0.00 | inf |" in report.table()


# --- what is missing or broken ----------------------------------------------------------------------------


def test_a_corrupt_photograph_is_named_and_its_group_judged_by_the_others(folders):
    results, targets, masks = folders
    whole = (results / "10_1.png").read_bytes()
    (results / "10_1.png").write_bytes(whole[: len(whole) // 2])
    report = evaluate(results, targets, masks)
    assert list(report.failed) == ["10_1"]
    assert "10_1.png is damaged or cut short" in report.failed["10_1"]
    rest = [name for name in NAMES if name != "10_1"]
    assert report.numbers == pytest.approx(expected(rest), abs=1e-12)
    assert "Not evaluated (1):\n\n- 10_1: " in report.table()
    assert "5 photographs in 3 groups" in report.table()


def test_a_group_that_is_left_with_one_photograph_counts_as_zero(folders):
    results, targets, masks = folders
    (results / "9_1.png").write_bytes(b"")
    report = evaluate(results, targets, masks)
    assert "9_1.png is empty" in report.failed["9_1"]
    means = {name: measures.mean_ab for name, measures in report.photographs.items()}
    groups = [metrics.group_id(name) for name in means]
    assert metrics.group_variances(list(means.values()), groups)["9"] == 0


def test_missing_partners_are_named_file_by_file(folders):
    results, targets, masks = folders
    (targets / "9_1.tif").unlink()
    (masks / "9_1.png").unlink()
    (masks / "10_0.png").unlink()
    report = evaluate(results, targets, masks)
    assert report.failed == {
        "9_1": "no target of this name and no mask of this name",
        "10_0": "no mask of this name",
    }
    assert report.numbers == pytest.approx(expected(["9_0", "10_1", "10_2", "1357_0"]), abs=1e-12)


def test_targets_without_a_result_are_listed(folders):
    results, targets, masks = folders
    (results / "10_1.png").unlink()
    (results / "1357_0.png").unlink()
    report = evaluate(results, targets, masks)
    assert report.missing == ("10_1", "1357_0")
    assert "Targets without a result (2): 10_1, 1357_0" in report.table()


def test_a_long_list_of_missing_results_is_cut_with_its_number(folders):
    results, targets, masks = folders
    for index in range(30):
        (targets / f"20_{index:02d}.tif").write_bytes(b"never read")
    report = evaluate(results, targets, masks)
    assert len(report.missing) == 30
    assert "Targets without a result (30): 20_00, 20_01" in report.table()
    assert "20_19 and 10 more" in report.table()


def test_a_mask_of_another_size_is_refused_unless_resizing_is_asked_for(folders):
    results, targets, masks = folders
    large = np.kron(mask("9_0"), np.ones((2, 2), np.uint8))
    Image.fromarray(large).save(masks / "9_0.png")
    report = evaluate(results, targets, masks)
    assert "mask has 48×72 pixels and the photograph 24×36" in report.failed["9_0"]
    resized = evaluate(results, targets, masks, resize_masks=True)
    assert resized.failed == {}
    assert resized.photographs["9_0"] == metrics.measure(
        result("9_0"), target("9_0"), metrics.resize_mask(large, SIZE)
    )


def test_a_result_of_another_size_than_its_target_is_named(folders):
    results, targets, masks = folders
    Image.fromarray(result("9_0")[1:]).save(results / "9_0.png")
    reason = evaluate(results, targets, masks).failed["9_0"]
    assert "result has 23×36 pixels and the target 24×36" in reason


def test_nothing_that_can_be_measured_is_one_error(folders):
    results, targets, _ = folders
    for path in targets.iterdir():
        path.rename(path.with_name(f"expert-{path.name}"))
    with pytest.raises(InputError, match=r"none of the 6 photographs in .*results could.*no target of this"):
        evaluate(results, targets)


def test_a_missing_expert_is_named_with_those_that_are_there(folders):
    results, targets, masks = folders
    targets.with_name("target_c").mkdir()
    with pytest.raises(InputError, match=r"target_b does not exist; there is target_[ac] and target_[ac]$"):
        evaluate(results, targets.with_name("target_b"), masks)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_missing_or_empty_folder_is_named(folders, tmp_path, position):
    kind = ("results", "targets", "masks")[position]
    given = list(folders)
    given[position] = tmp_path / "nowhere" / "nothing"
    with pytest.raises(InputError, match=f"folder of {kind} .*nothing does not exist"):
        evaluate(*given)
    given[position] = tmp_path / "empty"
    given[position].mkdir()
    with pytest.raises(InputError, match=f"folder of {kind} .*empty holds no images"):
        evaluate(*given)


def test_two_files_of_one_name_are_refused(folders):
    results, targets, masks = folders
    Image.fromarray(result("9_0")).save(results / "9_0.tif")
    with pytest.raises(InputError, match=r"9_0\.png and .*9_0\.tif have one name"):
        evaluate(results, targets, masks)
