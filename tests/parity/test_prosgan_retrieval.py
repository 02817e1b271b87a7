"""MAP and top-k MAP against the official evaluation: stable ties, and all of their orders."""

import json
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.prosgan import retrieval, retrieval_compiled
from cvpr21lib.prosgan.retrieval import pack, score

FIXTURES = Path(__file__).parent / "prosgan"
IMPLEMENTATIONS = {"numpy": retrieval._score, "compiled": retrieval_compiled.score}


@pytest.fixture(params=["map_0", "map_1"])
def official(request):
    return np.load(FIXTURES / f"{request.param}.npz")


@pytest.fixture(params=IMPLEMENTATIONS)
def scored(request, official, monkeypatch):
    """`score` of the fixture's queries on its database, by either implementation."""
    compiled = type("module", (), {"score": IMPLEMENTATIONS[request.param]})
    monkeypatch.setattr(retrieval, "_compiled", lambda: compiled)
    monkeypatch.setattr(retrieval, "_is_large", lambda *_: True)
    queries, database = (pack(official[f"in/{s}B"], official[f"in/{s}L"]) for s in "qr")
    return lambda top=None: score(queries, database, top)


def test_hamming_distances(official):
    queries, database = (pack(official[f"in/{s}B"], official[f"in/{s}L"]) for s in "qr")
    np.testing.assert_array_equal(retrieval.distances(queries, database), official["out/hamming"])


def test_map_with_stable_ties_is_the_official_one(scored, official):
    assert scored().map == pytest.approx(float(official["out/map_stable"]), abs=1e-12)


def test_top_k_map_with_stable_ties_is_the_official_one(scored, official):
    found = [scored(top).map for top in json.loads(str(official["meta"]))["topks"]]
    np.testing.assert_allclose(found, official["out/topmap_stable"], rtol=0, atol=1e-12)


def test_the_expectation_over_ties_is_the_closed_form(scored, official):
    assert scored().map_expected == pytest.approx(float(official["out/map_expected_ties"]), abs=1e-10)


def test_the_expectation_over_ties_is_the_mean_of_the_official_code_on_shuffled_databases(scored, official):
    error = float(official["out/map_random_ties_sem"])
    assert scored().map_expected == pytest.approx(float(official["out/map_random_ties_mean"]), abs=4 * error)


def test_the_official_number_of_this_or_any_machine_lies_between_the_best_and_the_worst_ties(
    scored, official
):
    best, worst = float(official["out/map_best_ties"]), float(official["out/map_worst_ties"])
    for number in (scored().map, scored().map_expected, float(official["out/map_default_argsort"])):
        assert worst < number < best
