# Every target makes its own .venv first; nothing else is needed than python3 (3.11 or newer) and make.
PYTHON ?= python3
RUN := .venv/bin/python -m
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help reports test lint mutants serve lab data bench lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, {sys.version.split()[0]} was found; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

reports: $(READY)  ## run the notebooks that changed and rebuild reports/ (ARGS="--force")
	$(RUN) ser_lib reports $(ARGS)

test: $(READY)  ## run the tests (ARGS="-k audio")
	$(RUN) pytest $(ARGS)

lint: $(READY)  ## ruff (lint, docstrings, format), mypy and codespell
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) mypy --platform win32 --cache-dir .mypy_cache/win32
	$(RUN) codespell_lib

mutants: export OMP_THREAD_LIMIT := 1  # xgboost in a forked process would wait for threads that are not there
mutants: $(READY)  ## does each change of a line fail a test? (ARGS="ser_lib.splits*"); those that survive are explained
	.venv/bin/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	$(RUN) mutmut run $(ARGS)
	$(RUN) mutmut results > mutants/results
	@! cut -d' ' -f1 tests/survivors.txt | grep -vFf - mutants/results | grep -E ': (survived|no tests)$$'

serve: $(READY)  ## the prediction server, http://localhost:8000
	.venv/bin/python serve.py $(ARGS)

lab: $(READY)  ## JupyterLab with the first notebook open
	$(RUN) jupyterlab --ServerApp.root_dir=. notebooks/01_eda.ipynb $(ARGS)

data: $(READY)  ## download RAVDESS speech (208 MB) into data/ravdess
	$(RUN) ser_lib data $(ARGS)

bench: $(READY)  ## how long things take: reports/bench.md (ARGS="--quick --out folder")
	$(RUN) ser_lib bench $(ARGS)

COMPILE := uv pip compile --quiet --universal --fork-strategy fewest --generate-hashes --no-header --no-annotate --python-version 3.11

lock:  ## resolve requirements.lock and requirements-serve.lock anew (needs uv)
	{ echo '# Exact versions with hashes, one set for Python 3.11 to 3.13. Made by `make lock`; environment.yml installs the same file.'; \
	$(COMPILE) --extra dev pyproject.toml; } > requirements.lock.new
	{ echo '# Of requirements.lock what serve.py needs. Made by `make lock`; the Dockerfile installs it.'; \
	$(COMPILE) --constraint requirements.lock.new --group serve; } > requirements-serve.lock.new
	mv requirements.lock.new requirements.lock
	mv requirements-serve.lock.new requirements-serve.lock

clean:  ## remove the environment and the feature cache
	rm -rf .venv data/cache
