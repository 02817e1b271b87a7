"""One list of dependencies: what conda and make install is what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EVERYTHING = ".[book,test]"


@pytest.fixture(scope="module")
def conda_dependencies():
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_conda_installs_the_project_itself_and_lists_no_package_twice(conda_dependencies):
    named = [entry for entry in conda_dependencies if isinstance(entry, str)]
    assert named == [f"python{PROJECT['requires-python']}", "pip"]
    assert [entry for entry in conda_dependencies if not isinstance(entry, str)] == [
        {"pip": [f"-e {EVERYTHING}"]}
    ]


def test_make_installs_the_same_set():
    assert re.findall(r"pip install .*", (ROOT / "Makefile").read_text()) == [
        f'pip install --editable "{EVERYTHING}"'
    ]


def test_the_extras_named_there_exist():
    extras = set(re.search(r"\[(.*)\]", EVERYTHING)[1].split(","))
    assert extras <= set(PROJECT["optional-dependencies"])


def test_no_package_is_listed_in_two_places():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    names = [re.match(r"[\w.-]+", requirement)[0].lower() for each in lists for requirement in each]
    assert sorted(names) == sorted(set(names))


def test_what_ci_pins_is_a_dependency_within_its_range():
    from packaging.requirements import Requirement

    ranges = {item.name: item.specifier for item in map(Requirement, PROJECT["dependencies"])}
    for line in (ROOT / ".ci" / "constraints.txt").read_text().split():
        name, version = line.split("==")
        assert version in ranges[name], f"{line} is outside {name}{ranges[name]}"
