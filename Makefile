# Every target makes its own .venv first, with no more in it than the target needs; python3 (3.11 or newer) and make are enough.
PYTHON ?= python3
RUN := .venv/bin/python -m
# uv installs the same files several times as fast
ifneq ($(shell command -v uv),)
INSTALL := uv pip install --quiet --python .venv/bin/python
else
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check
endif
# A lock is complete: with --no-deps nothing beside it is looked for, so a new release of anything changes nothing.
LOCKED = $(INSTALL) --no-deps --require-hashes --requirement
# What is installed, each with what stands before it.
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

serve: $(SERVE)  ## the prediction server with its page, http://localhost:8000 (ARGS="--port 8001")
	.venv/bin/python serve.py $(ARGS)

predict: $(SERVE)  ## the emotion of a recording or of a folder of them: make predict FILE=clip.wav
	@test -n "$(FILE)" || { echo "which recording? make predict FILE=clip.wav"; exit 2; }
	@$(RUN) ser_lib predict $(ARGS) -- "$(FILE)"

reports: $(NOTEBOOKS)  ## run the notebooks that changed and rebuild reports/ (ARGS="--force")
	$(RUN) ser_lib reports $(ARGS)

test: $(TESTS)  ## the tests, on all cores, but the slow ones (ARGS="-k audio")
	$(RUN) pytest -n auto --dist loadfile -m "not slow" $(ARGS)

test-all: $(TESTS)  ## every test, the slow ones too
	$(RUN) pytest -n auto --dist loadfile $(ARGS)

lint: $(TESTS)  ## ruff (lint, docstrings, format), mypy and codespell
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) mypy --platform win32 --cache-dir .mypy_cache/win32
	$(RUN) codespell_lib

mutants: export OMP_THREAD_LIMIT := 1  # xgboost in a forked process would wait for threads that are not there
mutants: $(TESTS)  ## does each change of a line fail a test? (ARGS="ser_lib.evaluation.splits*"); those that survive are explained
	.venv/bin/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	$(RUN) mutmut run $(ARGS)
	$(RUN) mutmut results > mutants/results
	@! cut -d' ' -f1 tests/survivors.txt | grep -vFf - mutants/results | grep -E ': (survived|no tests)$$'

lab: $(NOTEBOOKS)  ## JupyterLab with the first notebook open
	$(RUN) jupyterlab --ServerApp.root_dir=. notebooks/01_eda.ipynb $(ARGS)

data: $(NOTEBOOKS)  ## download RAVDESS speech (208 MB) into data/ravdess
	$(RUN) ser_lib data $(ARGS)

bench: $(NOTEBOOKS)  ## how long things take: reports/bench.md (ARGS="--quick --out folder")
	$(RUN) benchmarks.bench $(ARGS)

COMPILE := uv pip compile --quiet --universal --fork-strategy fewest --no-strip-extras --generate-hashes --no-header --no-annotate --python-version 3.11 --constraint newest.tmp

lock:  ## resolve the three lock files anew (needs uv)
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
