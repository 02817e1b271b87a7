# Every target makes .venv and installs what is needed the first time, and again when pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
BOOK := $(BIN)/jupyter-book build --warningiserror --keep-going

.PHONY: help reproduce test lint book outputs records benchmarks browser clean

help:
	@echo "make reproduce    run every chapter on this machine, and build the book from what came out"
	@echo "make test         run every check: style, types, tests, notebooks, the book in a browser"
	@echo "make book         build the book from the outputs kept in the notebooks"
	@echo "make outputs      run the notebooks and keep in them what came out"
	@echo "make records      make the records in book/records again (long)"
	@echo "make benchmarks   measure speed side by side with the references"
	@echo "make clean        remove what was built; .venv, runs and data stay"

reproduce: $(INSTALLED)
	$(BIN)/python book/reproduce.py

test: lint browser
	$(BIN)/python -m pytest -m "not browser"
	rm -rf _build/nbval _build/html
	mkdir -p _build/nbval
	CVPR21_RUNS=$(CURDIR)/_build/nbval $(BIN)/python -m pytest notebooks \
	    --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg
	$(MAKE) book
	$(BIN)/python -m pytest -m browser

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

book: $(INSTALLED)
	$(BOOK) .

outputs: $(INSTALLED)
	$(BIN)/python book/keep_outputs.py

records: $(INSTALLED)
	for paper in lptn ppr10k eps eopsn ctrl_uda; do $(BIN)/cvpr21 records $$paper || exit 1; done

benchmarks: $(INSTALLED)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

browser: $(INSTALLED)
	sh tests/book/install_browser.sh

clean:
	rm -rf _build build dist .pytest_cache .mypy_cache .ruff_cache .benchmarks *.egg-info
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml .ci/constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("cvpr21lib needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable ".[book,test]"
	touch $@
