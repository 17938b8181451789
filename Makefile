# Everything sets up what it needs first. PYTHON=python3.12 picks the interpreter, VENV=path the environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# By environment, so that it holds in the build environments too; the second name is for newer pips.
PINNED = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
# A process a core, and no more than pay: each loads the libraries anew.
PARALLEL = --numprocesses=logical --maxprocesses=4 --dist=worksteal
# Where the shell forbids it, each of the many processes of the tests compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = $(PINNED) $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

.PHONY: help demo test check bench docs constraints clean

help:
	@echo "make demo   index the standard library's docstrings and ask them (QUESTION=\"...\" asks another question)"
	@echo "make test   run the tests"
	@echo "make check  lint, formatting, types, import contracts"
	@echo "make bench  run every benchmark on a small sample"
	@echo "make docs   build the documentation into site/, with warnings as errors"

demo: $(VENV)/.with-all
	@$(BIN)/rerank-integrations demo $${QUESTION:+"$$QUESTION"}

test: $(VENV)/.with-dev
	$(BIN)/python -m pytest $(PARALLEL)

check: $(VENV)/.with-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.with-dev
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" --quick; done

# --group needs a newer pip than Python 3.10 to 3.12 bring.
docs: $(VENV)/.with-dev
	$(INSTALL) --upgrade 'pip>=25.1'
	$(INSTALL) --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Resolves anew for every Python that is supported, from metadata alone.
constraints: $(VENV)/.with-dev
	$(INSTALL) uv
	printf '%s\n' build editables hatchling uv | $(BIN)/uv pip compile pyproject.toml - --extra dev --extra colbert-ai --group docs \
		--universal --python-version 3.10 --no-annotate --custom-compile-command "make constraints" \
		--quiet --output-file constraints.txt

clean:
	rm -rf $(VENV) .venvs dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed; give it by PYTHON=..." if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.with-%: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	@echo "Installing rerank-integrations[$*] into $(VENV) ..."
	@$(INSTALL) --editable '.[$*]'
	@touch $@
