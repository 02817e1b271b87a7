"""Every command that the README and the book print names things that exist."""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cvpr21lib import lptn
from cvpr21lib.lptn.recipe import Knobs
from cvpr21lib.options import Options

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("book/**/*.md"))]
PARAMETERS = {field.name for kind in (Options, Knobs) for field in dataclasses.fields(kind)}


def printed_commands() -> list[list[str]]:
    """The commands in all console blocks, continued lines joined, as words without comments."""
    commands = []
    for document in DOCUMENTS:
        blocks = re.findall(
            r"```(?:console|bash)\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            commands += [words] if words else []
    return commands


def with_word(word: str) -> list[list[str]]:
    found = [words for words in printed_commands() if word in words]
    assert found, f"no document prints a command with {word!r} any more"
    return found


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE)) <= targets


def test_papermill_runs_a_notebook_with_parameters_that_exist():
    for words in with_word("papermill"):
        assert set(re.findall(r"-p (\w+)", " ".join(words))) <= PARAMETERS
        assert (ROOT / words[1]).is_file()


def test_runs_are_started_with_flags_that_exist():
    started = with_word("cvpr21lib")
    assert {words[0] for words in started} >= {"torchrun", "srun"}
    for words in started:
        after = words[words.index("cvpr21lib") :]
        assert after[1:3] == ["run", "lptn"]
        assert {word[2:].replace("-", "_") for word in after if word.startswith("--")} <= PARAMETERS


def test_the_command_line_has_the_commands_that_are_printed():
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    printed = set(re.findall(r"`cvpr21 ([a-z]+)", text))
    assert printed >= {"run", "results", "translate"}
    listed = _help("cvpr21lib")
    assert {command for command in printed if command not in listed.split()} == set()


def test_data_scripts_know_the_flags_that_are_printed():
    for words in (words for words in printed_commands() if any(w.startswith("data_scripts.") for w in words)):
        module = next(word for word in words if word.startswith("data_scripts."))
        listed = _help(module)
        for flag in (word for word in words if word.startswith("--")):
            assert flag in listed, f"{module} has no {flag}"


@pytest.mark.parametrize("document", ["README.md", "book/full_scale.md", "book/welcome.md"])
def test_python_does_what_is_printed(document, miniature_fivek, tmp_path, monkeypatch):
    root = miniature_fivek(root=tmp_path / "data" / "FiveK_480p")
    monkeypatch.chdir(tmp_path)
    shutil.copy(root / "test" / "A" / "4501.jpg", "photo.jpg")
    torch.save(lptn.LPTN().state_dict(), "net_g_FiveK_numhigh3.pth")
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert blocks
    for block in blocks:
        exec(block, {"image": torch.rand(1, 3, 37, 50)})


def test_the_table_of_parameters_names_fields_of_options():
    text = (
        (ROOT / "book" / "full_scale.md")
        .read_text(encoding="utf-8")
        .split("## With papermill")[1]
        .split("\n## ")[0]
    )
    named = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert len(named) >= 9
    assert set(named) <= {field.name for field in dataclasses.fields(Options)}


def _help(module: str) -> str:
    wide = {**os.environ, "COLUMNS": "200"}
    call = [sys.executable, "-m", module, "--help"]
    return subprocess.run(call, check=True, cwd=ROOT, env=wide, capture_output=True, text=True).stdout
