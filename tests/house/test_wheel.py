"""The wheel holds the library alone, and works without the book's dependencies."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cvpr21lib

ROOT = Path(__file__).parents[2]

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys

sys.path[:0] = sys.argv[1:]
import cvpr21lib
assert cvpr21lib.__file__.startswith(sys.argv[1]), cvpr21lib.__file__
assert "torch" not in sys.modules and "numpy" not in sys.modules, "import cvpr21lib is not light"
for module in pkgutil.walk_packages(cvpr21lib.__path__, "cvpr21lib."):
    # the first two need an extra
    compiled = ("cvpr21lib.ppr10k.lut_compiled", "cvpr21lib.prosgan.retrieval_compiled")
    if module.name not in (*compiled, "cvpr21lib.figures", "cvpr21lib.__main__"):
        importlib.import_module(module.name)
        print(module.name)
try:
    importlib.import_module("cvpr21lib.figures")
except ImportError as error:
    assert "cvpr21lib[book]" in str(error), error
else:
    raise AssertionError("cvpr21lib.figures was imported without the book's dependencies")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    information = f"cvpr21lib-{cvpr21lib.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"cvpr21lib", information}
    assert "cvpr21lib/py.typed" in names
    assert f"{information}/licenses/LICENSE" in names
    in_tree = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cvpr21lib").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert {name for name in names if name.endswith(".py")} == in_tree


def test_the_version_stands_in_one_place(wheel):
    archive = zipfile.ZipFile(wheel)
    text = archive.read(f"cvpr21lib-{cvpr21lib.__version__}.dist-info/METADATA").decode()
    assert Parser().parsestr(text)["Version"] == cvpr21lib.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]


def test_the_wheel_works_without_the_books_dependencies(wheel, tmp_path):
    installed = tmp_path / "installed"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", installed, wheel]
    subprocess.run([sys.executable, "-m", *install], check=True)
    required = tmp_path / "required"
    required.mkdir()
    link_requirements(metadata.Distribution.at(next(installed.glob("*.dist-info"))), required)
    assert (required / "torch").exists()
    assert not (required / "matplotlib").exists()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_EVERYTHING, installed, required],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "cvpr21lib.cli" in done.stdout.split()


def link_requirements(distribution: metadata.Distribution, folder: Path) -> None:
    """Link into `folder` what the distribution requires, without extras, and what that requires in turn."""
    for requirement in map(Requirement, distribution.requires or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        needed = metadata.distribution(requirement.name)
        tops = {file.parts[0] for file in needed.files or []} - {"..", "__pycache__"}
        new = [top for top in tops if not (folder / top).exists()]
        for top in new:
            (folder / top).symlink_to(needed.locate_file(top))
        if new:
            link_requirements(needed, folder)
