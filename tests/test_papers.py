"""The register says what is known of the eight papers, and how surely."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cvpr21lib import papers
from cvpr21lib.errors import InputError
from cvpr21lib.papers import pages
from cvpr21lib.papers.tables import table

ROOT = Path(__file__).parents[1]
SLUGS = ["lptn", "ppr10k", "eps", "eopsn", "ctrl_uda", "prosgan", "laeo_gaze", "smurf"]
every_paper = pytest.mark.parametrize("paper", papers.all(), ids=lambda paper: paper.slug)


def test_eight_papers_stand_in_the_order_of_their_chapters():
    assert [paper.slug for paper in papers.all()] == SLUGS
    assert [paper.number for paper in papers.all()] == list(range(1, 9))


@every_paper
def test_every_entry_is_complete(paper):
    assert paper.title
    assert paper.claim
    assert paper.venue.startswith("CVPR 2021")
    assert len(paper.authors) >= 3
    assert all(len(author.split()) >= 2 for author in paper.authors)
    assert paper.data
    assert paper.tables


@every_paper
def test_every_number_has_a_legal_status_and_a_source(paper):
    assert paper.numbers()
    for number in paper.numbers():
        assert number.status in papers.STATUSES
        assert number.source
        assert bool(number.text) == (number.status != "not transcribed")


@every_paper
def test_links_are_well_formed(paper):
    assert re.fullmatch(r"https://arxiv\.org/abs/2105\.\d{5}", paper.url)
    assert paper.code is None or re.fullmatch(r"https://github\.com/[\w.-]+/[\w./-]+", paper.code.url)
    for data_set in paper.data:
        assert data_set.url is None or re.fullmatch(r"https?://[\w.-]+(/\S*)?", data_set.url)


@every_paper
def test_a_named_notebook_is_there(paper):
    assert paper.notebook is None or (ROOT / paper.notebook).is_file()


@every_paper
def test_a_room_is_there_exactly_where_a_chapter_is_written(paper):
    assert (ROOT / "cvpr21lib" / paper.slug / "recipe.py").is_file() == (paper.notebook is not None)


def test_each_data_set_stands_once_and_its_script_is_there():
    data_sets = papers.data_sets()
    assert len({each.slug for each in data_sets}) == len(data_sets)
    for each in data_sets:
        assert each.script is None or (ROOT / "data_scripts" / f"{each.script}.py").is_file()


# Read by hand from the sources named in the register.
SPOT_NUMBERS = [
    ("lptn", "released", "released architecture, L=3", "PSNR (dB) ↑", "22.9", "verified"),
    ("lptn", "fivek", "LPTN, L=3", "480p PSNR (dB) ↑", "22.12", "unverified"),
    ("lptn", "fivek", "DPE", "1080p SSIM ↑", "0.885", "unverified"),
    ("lptn", "fivek", "MUNIT", "original PSNR (dB) ↑", "out of memory", "unverified"),
    ("lptn", "seconds", "White-Box", "4K ↓", "11.342", "unverified"),
    ("lptn", "seconds", "LPTN, L=4", "2K ↓", "", "not transcribed"),
    ("ppr10k", "val360p", "a, 3D LUT", "PSNR (dB) ↑", "25.64", "verified"),
    ("ppr10k", "val360p", "a, 3D LUT", "ΔE_ab ↓", "6.97", "verified"),
    ("ppr10k", "val360p", "a, 3D LUT", "MGLC ↓", "11.47", "unverified"),
    ("ppr10k", "val360p", "c, 3D LUT + HRP", "ΔE-HC ↓", "4.82", "unverified"),
    ("ppr10k", "val360p", "b, 3D LUT + HRP + GLC", "MGLC ↓", "", "not transcribed"),
    ("eps", "pseudo_masks", "VOC12 train, EPS, threshold 0.20", "mIoU (%) ↑", "69.22", "verified"),
    ("eps", "pseudo_masks", "COCO14 train, EPS, threshold 0.20", "mIoU (%) ↑", "37.15", "verified"),
    ("eps", "boundaries", "SEAM", "precision (%) ↑", "45.0", "unverified"),
    ("eopsn", "coco", "K = 20 %, EOPSN", "unknown PQ", "11.3", "verified"),
    ("eopsn", "coco", "K = 10 %, void-train", "stuff SQ", "70.4", "verified"),
    ("eopsn", "reruns", "K = 5 %, EOPSN", "unknown precision", "38.3", "verified"),
    ("ctrl_uda", "synthia_cityscapes16", "CTRL, mean ± sd", "mIoU, 13 classes ↑", "51.0 ± 0.7", "verified"),
    ("ctrl_uda", "seven_classes", "DADA", "SYNTHIA → Mapillary, LR ↑", "55.8", "verified"),
    ("prosgan", "main", "ProS-GAN", "NUS-WIDE", "", "not transcribed"),
    ("laeo_gaze", "gaze360", "this paper, Gaze360 + LAEO data", "all 360°", "13.2", "verified"),
    ("smurf", "benchmarks", "SMURF, trained on the train split", "KITTI test outliers", "6.83", "verified"),
    ("smurf", "benchmarks", "UFlow", "KITTI test outliers", "11.13", "unverified"),
    ("smurf", "benchmarks", "RAFT, supervised, out of domain", "KITTI train outliers", "17.4", "verified"),
    ("smurf", "generalisation", "SMURF, FlyingChairs", "Chairs test EPE", "1.72", "verified"),
]


@pytest.mark.parametrize(("slug", "name", "row", "column", "text", "status"), SPOT_NUMBERS)
def test_spot_numbers_are_as_their_sources_print_them(slug, name, row, column, text, status):
    number = papers.get(slug).table(name).cell(row, column)
    assert (number.text, number.status) == (text, status)


def test_no_number_of_the_attack_paper_is_claimed():
    assert {number.status for number in papers.get("prosgan").numbers()} == {"not transcribed"}


def test_human_centred_psnr_of_the_printed_misprint_is_marked_and_explained():
    paper = papers.get("ppr10k")
    number = paper.table("val360p").cell("a, 3D LUT + HRP", "PSNR-HC (dB) ↑")
    assert (number.text, number.status) == ("28.29", "unverified")
    assert number.text in paper.reading


def test_ctrl_gain_over_the_best_baseline_is_the_difference_of_the_table():
    reported = papers.get("ctrl_uda").table("synthia_cityscapes16")
    best, dada = (float(reported.cell(row, "mIoU, 16 classes ↑").text) for row in ("CTRL, best", "DADA"))
    assert best - dada == pytest.approx(2.3)


def test_smurf_test_numbers_agree_with_the_abstract():
    reported = papers.get("smurf").table("benchmarks")
    for column in ("clean test EPE", "final test EPE", "KITTI test outliers"):
        ours, theirs = (
            float(reported.cell(row, column).text) for row in ("SMURF, trained on the train split", "UFlow")
        )
        assert 0.355 < 1 - ours / theirs < 0.405  # "36 % to 40 %"


def test_eopsn_quality_is_the_product_of_its_two_factors():
    for row in papers.get("eopsn").table("reruns").rows:
        pq, sq, rq = (float(cell.text) for cell in row.cells[:3])
        assert pq == pytest.approx(sq * rq / 100, abs=0.15)


def test_a_mistyped_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown paper 'lptm': did you mean 'lptn'\?"):
        papers.get("lptm")
    with pytest.raises(InputError, match=r"unknown table of lptn 'five': did you mean 'fivek'\?"):
        papers.get("lptn").table("five")
    with pytest.raises(InputError, match="unknown row of table 'fivek' 'LPTN L=3': did you mean 'LPTN, L=3'"):
        papers.get("lptn").table("fivek").cell("LPTN L=3", "480p SSIM ↑")


def test_the_notation_of_tables_is_read_as_documented():
    read = table(
        "t", "T", "method | a | b | source\n x | 1.5 | 2? | \n y | … | – | issue 7", source="Table 1"
    )
    (a, b), (c, d) = (row.cells for row in read.rows)
    assert (a.text, a.status, a.source) == ("1.5", "verified", "Table 1")
    assert (b.text, b.status) == ("2", "unverified")
    assert (c.text, c.status, c.source) == ("", "not transcribed", "issue 7")
    assert d is None


@pytest.mark.parametrize("text", ["method | a\n x | 1 | 2", "method | a\n x |", "method | a\n x | ?"])
def test_a_broken_table_is_refused(text):
    with pytest.raises(InputError):
        table("t", "T", text, source="Table 1")


def test_readme_shows_the_generated_table():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    between = re.search(r"<!-- papers:begin[^\n]*-->\n(.*?)\n<!-- papers:end -->", readme, flags=re.DOTALL)
    assert between, "README.md has lost the markers of its table"
    assert between[1].strip() == papers.markdown_table(), (
        "README.md's table is stale: put there what `cvpr21 papers --markdown` prints"
    )


def test_the_marks_in_the_book_are_those_of_the_legend():
    marks = {re.sub(r"[\d.]+", "", mark) for mark in pages.LEGEND}
    assert marks == {"", pages.UNCHECKED, "…", "–"}
    quality = papers.get("lptn").table("fivek")
    assert pages.mark(quality.cell("CycleGAN", "480p SSIM ↑")) == f"0.831{pages.UNCHECKED}"
    assert pages.mark(quality.cell("CycleGAN", "original SSIM ↑")) == "–"


def test_chapters_not_written_yet_say_so_and_link_nowhere():
    for paper, line in zip(papers.all(), papers.markdown_table().splitlines()[2:], strict=True):
        assert (".ipynb" in line) == (paper.notebook is not None)
        assert ("not written yet" in line) == (paper.notebook is None)


def test_bars_in_cells_do_not_break_a_table():
    assert pages.markdown(("a|b",), [("c",)]).splitlines()[0] == "| a\\|b |"


def test_the_register_needs_the_standard_library_alone():
    heavy = "{'torch', 'numpy', 'PIL', 'lightning_fabric'} & set(sys.modules)"
    code = f"import sys, cvpr21lib.papers; raise SystemExit(str(sorted({heavy})) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
