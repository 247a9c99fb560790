# make bench: set up and run the main job.  make test: set up and run the tests.  make zoo: train the bundled models again.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    ?= runs/tiny

.PHONY: bench test zoo clean

bench: $(VENV)/.installed
	$(BIN)/robustcal bench --suite tiny --out $(RUN)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

zoo: $(VENV)/.installed
	$(BIN)/robustcal train tiny/zoo --out runs/zoo
	cp runs/zoo/bundle/weights/* robustcal/models/weights/tiny/
	cp runs/zoo/bundle/cards/* robustcal/models/cards/

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robustcal needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
