# make bench: set up and run the main job.  make test: set up and run the tests.  make check: types and style.
# make zoo: train the bundled models again.
# make docs: build the documentation into site/, as a warning-free site that needs no server.
# make lowest: run a part of the tests with the oldest versions that pyproject.toml allows (6 GB, in .venv-lowest).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    ?= runs/tiny

.PHONY: bench test check docs zoo lowest clean

bench: $(VENV)/.installed
	$(BIN)/robustcal bench --suite tiny --out $(RUN)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.installed-dev
	$(BIN)/mypy
	$(BIN)/ruff check

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict

zoo: $(VENV)/.installed
	$(BIN)/torchrun --nproc_per_node=2 -m robustcal.cli train tiny/clip --seed 0 --out runs/zoo/clip
	$(BIN)/robustcal train tiny/zoo --seed 0 --out runs/zoo
	cp runs/zoo/bundle/weights/* robustcal/models/weights/tiny/
	cp runs/zoo/bundle/cards/* robustcal/models/cards/

LOWEST_TESTS ?= $(addprefix tests/test_,attacks.py bench.py engine.py metrics_calibration.py models.py objectives.py \
	report_frame.py store.py train.py weights.py)

lowest:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "the lowest versions need Python 3.11; set PYTHON=")'
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/constraints.txt . pytest hypothesis mpmath
	.venv-lowest/bin/python -m pip uninstall --quiet --yes robustcal
	PYTHONPATH=. .venv-lowest/bin/python -m pytest $(LOWEST_TESTS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robustcal needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Without its dependencies: it asks for requests 2.25, which it never imports; the rest is here.
TORCHATTACKS = $(BIN)/python -m pip install --quiet --no-deps 'torchattacks>=3.5'

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	$(TORCHATTACKS)
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(TORCHATTACKS)
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .venv-lowest build dist site *.egg-info
