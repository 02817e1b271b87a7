"""The documents around the code hold together: links, versions, licence, references."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pybtex.database import parse_file

import cvpr21lib
from cvpr21lib import papers

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("book/**/*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"https?://", target):
            assert (ROOT / document).parent.joinpath(target).exists(), f"{document} links to {target}"


def test_every_page_of_the_book_is_in_its_table_of_contents():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:file|root): (\S+)", toc))
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob("book/**/*.md")}
    chapters = {Path(paper.notebook).with_suffix("").as_posix() for paper in papers.all() if paper.notebook}
    assert listed == pages | chapters


def test_every_module_of_the_library_has_its_place_in_the_reference():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in ROOT.glob("book/api/*.md"))
    shown = set(re.findall(r"automodule:: (\S+)", pages))
    files = (path.relative_to(ROOT).with_suffix("") for path in ROOT.glob("cvpr21lib/**/*.py"))
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files}
    facts = {
        f"cvpr21lib.papers.{name}"
        for name in ("datasets", "nearest", *(paper.slug for paper in papers.all()))
    }
    assert modules - shown == facts | {"cvpr21lib", "cvpr21lib.cli", "cvpr21lib.__main__"}
    assert shown <= modules


def test_citation_file_is_valid_and_of_this_version():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    subprocess.run([*check, "CITATION.cff"], check=True, cwd=ROOT, capture_output=True)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == cvpr21lib.__version__


def test_changelog_knows_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(cvpr21lib.__version__)}\b", changelog, flags=re.MULTILINE)


def test_licence_is_apache_2():
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


@pytest.mark.parametrize("paper", papers.all(), ids=lambda paper: paper.slug)
def test_the_bibliography_agrees_with_the_register(paper):
    entry = parse_file(str(ROOT / "book" / "references.bib")).entries[paper.slug]
    assert re.sub("[{}]", "", entry.fields["title"]) == paper.title
    assert entry.fields["eprint"] == paper.arxiv
    names = [
        " ".join(person.first_names + person.middle_names + person.last_names)
        for person in entry.persons["author"]
    ]
    assert names == list(paper.authors)


def test_every_data_set_with_a_page_of_its_own_is_in_the_bibliography():
    entries = parse_file(str(ROOT / "book" / "references.bib")).entries
    without_paper = {
        "lptn_flickr",
        "coco2014",
        "coco2017",
        "ppr10k",
    }  # the last three: under coco, and the paper itself
    assert {each.slug for each in papers.data_sets()} - without_paper <= set(entries)


def test_every_citation_in_the_book_is_in_the_bibliography():
    entries = parse_file(str(ROOT / "book" / "references.bib")).entries
    for page in ROOT.glob("book/**/*.md"):
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page.read_text(encoding="utf-8")):
            assert {key.strip() for key in keys.split(",")} <= set(entries), page
