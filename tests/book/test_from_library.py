"""The book takes its facts and its docstrings from the library, and shows them as they are meant."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def extension():
    specification = importlib.util.spec_from_file_location("from_library", ROOT / "book/_ext/from_library.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def written(extension, docstring):
    lines = docstring.splitlines()
    extension.plain_docstring(None, "function", "f", None, None, lines)
    return "\n".join(lines).rstrip()


def test_pages_ask_for_blocks_that_there_are(extension):
    asked = {
        name
        for page in ROOT.glob("book/*.md")
        for name in re.findall(r"^```\{from-library\} (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert asked == set(extension.BLOCKS)


def test_every_block_says_something(extension, monkeypatch, tmp_path):
    monkeypatch.setenv("CVPR21_RUNS", str(tmp_path))
    assert all("| --- |" in block() for block in extension.BLOCKS.values())


def test_marks_in_a_docstring_mean_themselves(extension):
    assert written(extension, "(N, C, *size) and |dD/dx|") == r"(N, C, \*size) and \|dD/dx\|"


def test_code_in_a_docstring_stays_code_even_before_a_letter(extension):
    assert written(extension, "Three `D`s of `a * b`.") == r"Three ``D``\ s of ``a * b``."


def test_an_indented_block_stays_as_it_is(extension):
    text = "Call it:\n\n    a = f(*b)   # c\n\nDone."
    assert written(extension, text) == "Call it:\n\n::\n\n    a = f(*b)   # c\n\nDone."


def test_arguments_and_errors_become_lists_of_terms(extension):
    text = "Do.\n\nArgs:\n    a: one,\n        continued.\n    b, c: *two*.\n\nRaises:\n    InputError: why."
    assert written(extension, text) == (
        "Do.\n\n**Args**\n\n``a``\n    one, continued.\n\n``b, c``\n    \\*two\\*.\n\n"
        "**Raises**\n\n``InputError``\n    why."
    )
