"""Terms are shown to everyone and accepted by the user, not by the script."""

from __future__ import annotations

import io

import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.papers.datasets import FIVEK
from data_scripts import licence


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_terms_are_shown_even_if_accepted_beforehand(capsys):
    licence.require(FIVEK, True, "LicenseAdobe.txt")
    shown = capsys.readouterr().err
    for part in (FIVEK.name, FIVEK.terms, "LicenseAdobe.txt", FIVEK.url):
        assert part in shown


def test_without_a_terminal_the_option_is_needed(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    with pytest.raises(InputError, match="--accept-licence"):
        licence.require(FIVEK, False, "LicenseAdobe.txt")


@pytest.mark.parametrize("typed", ["yes\n", " YES \n"])
def test_at_a_terminal_yes_is_enough(monkeypatch, typed):
    monkeypatch.setattr("sys.stdin", Keyboard(typed))
    licence.require(FIVEK, False, "LicenseAdobe.txt")


@pytest.mark.parametrize("typed", ["", "\n", "no\n", "y\n"])
def test_at_a_terminal_anything_else_is_a_no(monkeypatch, typed):
    monkeypatch.setattr("sys.stdin", Keyboard(typed))
    with pytest.raises(InputError, match="not accepted; nothing was done"):
        licence.require(FIVEK, False, "LicenseAdobe.txt")
