# Every target first sets up .venv with what it needs and no more. Only python3 (3.11 or newer) and make are required.
PYTHON ?= python3
RUN := .venv/bin/python -m
# uv installs the same files several times faster
ifneq ($(shell command -v uv),)
INSTALL := uv pip install --quiet --python .venv/bin/python
else
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check
endif
# A lock is complete. With --no-deps nothing else is installed, so that new releases change nothing.
LOCKED = $(INSTALL) --no-deps --require-hashes --requirement
# Stages of the environment; each includes the one before.
SERVE := .venv/.serve
NOTEBOOKS := .venv/.notebooks
TESTS := .venv/.tests

.DEFAULT_GOAL := help
.PHONY: help serve predict reports lab data test test-all lint mutants bench lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

$(SERVE): requirements-serve.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, {sys.version.split()[0]} was found; try: make PYTHON=python3.12")'
	@echo "Installing what predicting needs into .venv"
	$(PYTHON) -m venv --clear .venv
	$(LOCKED) requirements-serve.lock
	@touch $@

$(NOTEBOOKS): requirements-notebooks.lock pyproject.toml $(SERVE)
	@echo "Installing what the notebooks need into .venv"
	$(LOCKED) requirements-notebooks.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(TESTS): requirements-test.lock $(NOTEBOOKS)
	@echo "Installing what the tests need into .venv"
	$(LOCKED) requirements-test.lock
	@touch $@

serve: $(SERVE)  ## start the prediction server with its page, http://localhost:8000 (ARGS="--port 8001")
	.venv/bin/python serve.py $(ARGS)

predict: $(SERVE)  ## predict the emotion of a recording or a folder: make predict FILE=clip.wav
	@test -n "$(FILE)" || { echo "which recording? make predict FILE=clip.wav"; exit 2; }
	@$(RUN) ser_lib predict $(ARGS) -- "$(FILE)"

reports: $(NOTEBOOKS)  ## run the changed notebooks and rebuild reports/ (ARGS="--force")
	$(RUN) ser_lib reports $(ARGS)

test: $(TESTS)  ## run all but the slow tests, on all cores (ARGS="-k audio")
	$(RUN) pytest -n auto --dist loadfile -m "not slow" $(ARGS)

test-all: $(TESTS)  ## run all tests
	$(RUN) pytest -n auto --dist loadfile $(ARGS)

lint: $(TESTS)  ## check with ruff (lint, docstrings, format), mypy and codespell
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) mypy --platform win32 --cache-dir .mypy_cache/win32
	$(RUN) codespell_lib

mutants: export OMP_THREAD_LIMIT := 1  # else xgboost in a forked process waits for threads that do not exist
mutants: $(TESTS)  ## test the tests: does each changed line fail one? (ARGS="ser_lib.evaluation.splits*")
	.venv/bin/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	$(RUN) mutmut run $(ARGS)
	$(RUN) mutmut results > mutants/results
	@! cut -d' ' -f1 tests/survivors.txt | grep -vFf - mutants/results | grep -E ': (survived|no tests)$$'

lab: $(NOTEBOOKS)  ## open JupyterLab with the first notebook
	$(RUN) jupyterlab --ServerApp.root_dir=. notebooks/01_eda.ipynb $(ARGS)

data: $(NOTEBOOKS)  ## download RAVDESS speech (208 MB) into data/ravdess
	$(RUN) ser_lib data $(ARGS)

bench: $(NOTEBOOKS)  ## time everything and write reports/bench.md (ARGS="--quick --out folder")
	$(RUN) benchmarks.bench $(ARGS)

COMPILE := uv pip compile --quiet --universal --fork-strategy fewest --no-strip-extras --generate-hashes --no-header --no-annotate --python-version 3.11 --constraint newest.tmp

lock:  ## resolve the three lock files again (needs uv)
	printf "%s; python_version >= '3.15'\n" 'contourpy>=1.4' 'numpy>=2.5' 'scipy>=1.18' > newest.tmp  # the first with wheels for it
	{ echo '# What `make test` needs, exact versions with hashes for Python 3.11 to 3.15. Made by `make lock`.'; \
	$(COMPILE) --extra dev --group build pyproject.toml; } > requirements-test.lock.new
	{ echo '# Of requirements-test.lock what the notebooks need; environment.yml installs it too. Made by `make lock`.'; \
	$(COMPILE) --extra notebooks --group build --constraint requirements-test.lock.new pyproject.toml; } > requirements-notebooks.lock.new
	{ echo '# Of requirements-test.lock what predicting and serving needs; the Dockerfile installs it too. Made by `make lock`.'; \
	$(COMPILE) --constraint requirements-test.lock.new pyproject.toml; } > requirements-serve.lock.new
	for name in serve notebooks test; do mv requirements-$$name.lock.new requirements-$$name.lock; done
	rm newest.tmp

clean:  ## remove the environment and the feature cache
	rm -rf .venv data/cache
