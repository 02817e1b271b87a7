"""Records come back as they were written, and say what differs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import ModuleType

import pytest

from cvpr21lib import record
from cvpr21lib.errors import InputError


@pytest.fixture
def one() -> record.Record:
    return record.make(
        paper="toy",
        name="arm",
        profile="demo",
        seed=1,
        steps=10,
        numbers={"psnr": 22.123456789, "best": math.inf},
        curves={"loss": [[1, 2], [0.5, 0.25]]},
        settings={"recipe": {"lr": 0.1, "milestones": (1, 2)}},
        fingerprints={"code": "abc", "data": "def"},
        wall_time_s=1.23456,
    )


def test_a_record_comes_back_as_it_was(tmp_path, one):
    record.write(tmp_path / record.FILE_NAME, one)
    back = record.read(tmp_path / record.FILE_NAME)
    assert record.compare(one, back) == []
    assert back.numbers == one.numbers


def test_many_records_share_what_they_share(tmp_path, one):
    two = replace(one, seed=2, numbers={"psnr": 1.0})
    record.write_many(tmp_path / "demo.json", [one, two])
    back = record.read_many(tmp_path / "demo.json")
    assert [record.compare(a, b) for a, b in zip(back, [one, two], strict=True)] == [[], []]
    content = json.loads((tmp_path / "demo.json").read_text())
    assert "versions" in content["shared"]
    assert set(content["runs"][0]) == {"seed", "numbers"}


def test_comparing_names_every_difference(one):
    other = replace(one, seed=2, settings={"recipe": {"lr": 0.2, "milestones": [1, 2]}})
    found = {(d.entry, d.first, d.second) for d in record.compare(one, other)}
    assert found == {("seed", 1, 2), ("settings.recipe.lr", 0.1, 0.2)}


def test_collecting_finds_runs_and_files_of_several(tmp_path, one):
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    record.write(tmp_path / "runs" / "deep" / record.FILE_NAME, one)
    (tmp_path / "records" / "toy").mkdir(parents=True)
    record.write_many(tmp_path / "records" / "toy" / "demo.json", [replace(one, seed=s) for s in (5, 0)])
    assert [found.seed for found in record.collect(tmp_path)] == [0, 1, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[1]", "is not a record"),
        ('{"layout": 99}', "is not a record"),
        ('{"layout": 1, "paper": "toy"}', "lacks name, profile"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, text, message):
    path = tmp_path / record.FILE_NAME
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        record.read(path)
    with pytest.raises(InputError, match=r"no record at .*missing\.json"):
        record.read(tmp_path / "missing.json")


def fingerprint_of(source: str, tmp_path, monkeypatch) -> str:
    path = tmp_path / "some_module.py"
    path.write_text(source)
    module = ModuleType("some_module")
    module.__file__ = str(path)
    monkeypatch.setattr(record.inspect, "getsource", lambda module: path.read_text())
    return record.code_fingerprint([module])


def test_the_code_fingerprint_sees_code_not_prose(tmp_path, monkeypatch):
    plain = fingerprint_of("def f(x):\n    return x + 1\n", tmp_path, monkeypatch)
    commented = '"""Doc."""\n\n# why\ndef f(x):  # how\n    """More\n    doc."""\n\n    return x + 1\n'
    assert fingerprint_of(commented, tmp_path, monkeypatch) == plain
    assert fingerprint_of("def f(x):\n    return x + 2\n", tmp_path, monkeypatch) != plain
    assert fingerprint_of('def f(x):\n    return "# not a comment"\n', tmp_path, monkeypatch) != plain
