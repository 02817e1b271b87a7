"""The results page puts what the papers report beside what was measured here."""

import dataclasses

import pytest

from cvpr21lib import papers, results
from cvpr21lib.record import Record

RECORD = Record(
    paper="lptn",
    name="released-L3",
    profile="demo",
    seed=0,
    steps=155,
    numbers={"psnr": 22.0, "ssim": 0.84},
    curves={},
    settings={},
    fingerprints={"code": "0", "data": "0"},
    wall_time_s=10.0,
    finished="2026-11-22T00:00:00+00:00",
    versions={"torch": "2.9.0"},
    hardware={"processor": "a processor"},
    git_commit=None,
)


def test_every_paper_is_on_the_page_with_every_number_it_reports():
    page = results.page([])
    for paper in papers.all():
        assert f"## {paper.number}. {paper.short}" in page
        assert all(number.text in page for number in paper.numbers())


def test_what_is_not_there_is_said():
    assert results.section(papers.get("lptn"), []).endswith("No record of a run is here yet.")
    assert results.section(papers.get("smurf"), []).endswith("The chapter is not written yet.")


def test_seeds_of_one_experiment_become_one_row_with_mean_and_deviation():
    seeds = [
        dataclasses.replace(RECORD, seed=seed, numbers={"psnr": psnr})
        for seed, psnr in enumerate([21.0, 23.0])
    ]
    lines = results.runs(seeds).splitlines()
    assert lines[0] == "| run | profile | seeds | steps | psnr |"
    assert lines[2] == "| released-L3 | demo | 0 1 | 155 | 22 ± 1.4 |"
    assert len(lines) == 3


def test_experiments_and_profiles_are_not_mixed():
    others = [dataclasses.replace(RECORD, name="no-masking"), dataclasses.replace(RECORD, profile="full")]
    assert len(results.runs([RECORD, *others]).splitlines()) == 2 + 3


def test_runs_of_one_name_with_other_settings_are_kept_apart_and_told_apart():
    settings = {"recipe": {"crop": 128, "lr": 0.1}, "seed": 0, "run": {"devices": 1}}
    one = dataclasses.replace(RECORD, settings=settings)
    elsewhere = dataclasses.replace(one, seed=1, settings={**settings, "seed": 1, "run": {"devices": 4}})
    other = dataclasses.replace(one, settings={**settings, "recipe": {"crop": 256, "lr": 0.1}})
    rows = results.runs([one, elsewhere, other]).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| released-L3, crop 128", "| released-L3, crop 256"]
    assert "| 0 1 |" in rows[0]


def test_of_two_runs_with_one_seed_the_later_counts():
    later = dataclasses.replace(RECORD, finished="2026-11-23T00:00:00+00:00", numbers={"psnr": 24.0})
    for records in ([RECORD, later], [later, RECORD]):
        assert "| released-L3 | demo | 0 | 155 | 24 |" in results.runs(records)


def test_a_run_that_was_cut_short_is_not_averaged_with_a_whole_one():
    short = dataclasses.replace(RECORD, seed=1, steps=2)
    assert len(results.runs([RECORD, short]).splitlines()) == 2 + 2


def test_numbers_of_single_images_stay_in_the_record():
    one = dataclasses.replace(RECORD, numbers={"psnr": 22.0, "psnr/chelsea": 20.0})
    assert results.runs([one]).splitlines()[0] == "| run | profile | seeds | steps | psnr |"


def test_a_number_that_an_experiment_lacks_is_a_dash():
    other = dataclasses.replace(RECORD, name="other", numbers={"psnr": 20.0})
    assert "| other | demo | 0 | 155 | 20 | – |" in results.runs([RECORD, other])


@pytest.mark.parametrize("paper", [paper.slug for paper in papers.all() if paper.slug != "lptn"])
def test_a_record_is_shown_under_its_own_paper_only(paper):
    assert "released-L3" not in results.section(papers.get(paper), [])
    page = results.page([RECORD])
    assert page.count("| released-L3 |") == 1
    assert page.index("## 1. LPTN") < page.index("| released-L3 |") < page.index("## 2. PPR10K")
