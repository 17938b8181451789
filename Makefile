# Every target sets up what it needs first. PYTHON=python3.12 picks the interpreter, VENV=path the environment.
# The sessions are what CI runs, one after another (.ci/run); each runs by itself too.
PYTHON ?= python3
VENV ?= .venv
# Environments of the sessions that need their own, and the built packages.
VENVS ?= .venvs
BIN = $(VENV)/bin
BARE = $(VENVS)/bare/bin
SOURCES = $(shell find src -type f -not -name '*.pyc') pyproject.toml README.md LICENSE
WHEEL = $$(echo $(VENVS)/dist/*.whl)
# The projects of the thin distributions, and in its folder `built` their packages.
THIN = $(VENVS)/distributions
# By environment, so that it holds in the build environments too; the second name is for newer pips.
export PIP_CONSTRAINT = constraints.txt
export PIP_BUILD_CONSTRAINT = constraints.txt
PIP_INSTALL = -m pip install --quiet --quiet --disable-pip-version-check
PIP_UNINSTALL = -m pip uninstall --quiet --quiet --yes
INSTALL = $(BIN)/python $(PIP_INSTALL)
# Few of its modules are imported: none is compiled beforehand.
INSTALL_BARE = $(BARE)/python $(PIP_INSTALL) --no-compile
# Dependency groups need a newer pip than Python 3.10 to 3.12 bring.
NEW_PIP = --upgrade 'pip>=25.1'
# Everything that a test may need.
EXTRAS = all,cloud,mcp,onnx,openvino,remote,server,starter-multilingual,telemetry,train
# One process per core, and no more than pay off: each loads the libraries again.
PARALLEL = --numprocesses=logical --maxprocesses=4 --dist=worksteal
# CI gives a folder for the reports that it sums up.
PYTEST = -m pytest $(PARALLEL) $(if $(REPORTS),--junit-xml=$(REPORTS)/$@.xml)
# Where the shell forbids it, each of the many processes of the tests compiles the package again.
unexport PYTHONDONTWRITEBYTECODE

# What a pattern makes is kept: the stamps of environments.
.SECONDARY:
.PHONY: help demo dev bench examples constraints completeness clean environments \
	packages test slow browser image parity check docs neither langchain-alone llama-index-alone distributions pythons

help:
	@echo "make demo               index the standard library's docstrings and ask them (QUESTION=\"...\" asks another question)"
	@echo "make dev                set up $(VENV) with everything that the targets below install into it"
	@echo "make bench              run every benchmark on a small sample"
	@echo "make examples           run each example by its own first lines in a clean environment (EXAMPLES=name restricts it)"
	@echo "make completeness       report the public types that pyright cannot tell"
	@echo "make constraints        resolve constraints.txt again from pyproject.toml"
	@echo "make image              build and run the image by the Dockerfile's steps, without a container runtime (as root, on Linux)"
	@echo
	@echo "Sessions, all of which .ci/run runs:"
	@echo "make packages           build all wheels and sdists, the thin distributions' too, and check their contents"
	@echo "make test               run the tests"
	@echo "make slow               run the slow tests, parity with colbert-ai included"
	@echo "make browser            run the tests of the service's page in Chromium"
	@echo "make parity             run the tests of parity with colbert-ai alone"
	@echo "make check              lint, formatting, types (mypy and pyright), import contracts"
	@echo "make docs               build the documentation into site/, with warnings as errors"
	@echo "make neither            run what needs no framework where neither is installed"
	@echo "make langchain-alone    run LangChain's tests without LlamaIndex"
	@echo "make llama-index-alone  run LlamaIndex's tests without LangChain"
	@echo "make distributions      install the thin distributions beside the package and test them"
	@echo "make pythons            run what needs no torch on every other Python that is installed; make python3.12: on one"

demo: $(VENV)/.with-all
	@$(BIN)/rerank-integrations demo $${QUESTION:+"$$QUESTION"}

dev: $(VENV)/.with-test $(VENV)/.with-lint $(VENV)/.with-docs

test: $(VENV)/.with-test
	$(BIN)/python $(PYTEST)

slow: $(VENV)/.with-colbert-ai
	$(BIN)/python $(PYTEST) -m "slow or colbert_ai"

# Chromium is a package of the system: no registry of Python packages has it.
browser: $(VENV)/.with-browser
	@PYTHONPATH=tests/support $(BIN)/python -m chromium
	$(BIN)/python $(PYTEST) -m browser tests/server

image:
	PYTHONPATH=tests/support $(PYTHON) -m image_build

parity: $(VENV)/.with-colbert-ai
	$(BIN)/python $(PYTEST) -m colbert_ai

check: $(VENV)/.with-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typed_app
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/basedpyright
	$(BIN)/lint-imports

# How complete the package's types are for pyright, private modules included: 100% is the aim, and no condition of CI.
completeness: $(VENV)/.with-lint
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/basedpyright --verifytypes rerank_integrations --ignoreexternal

docs: $(VENV)/.with-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

packages:
	@rm -rf $(VENVS)/dist $(THIN)
	@$(MAKE) --no-print-directory $(THIN)/.built
	$(VENVS)/tools/bin/python .ci/contents.py $(VENVS)/dist $(THIN)

# One test of each kind; that nothing of the core imports a framework is in the contracts.
neither: $(VENVS)/bare/.ready
	$(BARE)/python $(PIP_UNINSTALL) langchain-core langchain-tests llama-index-core
	$(BARE)/python .ci/refuses.py rerank_integrations.langchain langchain
	$(BARE)/python .ci/refuses.py rerank_integrations.llama_index llama-index
	$(BARE)/python .ci/refuses.py rerank_integrations.server server
	$(BARE)/python .ci/refuses.py rerank_integrations.mcp mcp
	$(BARE)/python $(PYTEST) --frameworks= tests/core/index/test_colbert_index.py tests/core/reranking/test_rerank.py \
		tests/core/reranking/test_stored_vectors.py tests/starter/test_starter.py tests/cli/test_app.py \
		tests/cli/test_rerank_command.py tests/test_packaging.py tests/test_public_names.py tests/test_other_encoder.py

langchain-alone: $(VENVS)/bare/.ready
	$(BARE)/python $(PIP_UNINSTALL) llama-index-core
	$(INSTALL_BARE) "$(WHEEL)[langchain]" langchain-tests
	$(BARE)/python .ci/refuses.py rerank_integrations.llama_index llama-index
	$(BARE)/python $(PYTEST) --frameworks=langchain tests/adapters

llama-index-alone: $(VENVS)/bare/.ready
	$(BARE)/python $(PIP_UNINSTALL) langchain-core langchain-tests
	$(INSTALL_BARE) "$(WHEEL)[llama-index]"
	$(BARE)/python .ci/refuses.py rerank_integrations.langchain langchain
	$(BARE)/python $(PYTEST) --frameworks=llama-index tests/adapters

# Both frameworks, and beside them an integration of LlamaIndex that shares its namespace folders and outlives ours.
distributions: $(VENVS)/bare/.ready $(THIN)/.built
	@$(INSTALL_BARE) "$(WHEEL)" $(THIN)/built/*.whl --group distributions
	$(BARE)/python -m pip check
	$(BARE)/python $(PYTEST) distributions/tests
	@$(VENVS)/tools/bin/python $(PIP_INSTALL) basedpyright mypy
	$(VENVS)/tools/bin/mypy --config-file distributions/tests/mypy.ini --python-executable $(BARE)/python $(THIN)/typed_use.py
	PATH="$(abspath $(VENVS)/tools/bin):$$PATH" $(VENVS)/tools/bin/basedpyright --pythonpath $(BARE)/python $(THIN)/typed_use.py
	$(BARE)/python $(PIP_UNINSTALL) $$(cd $(THIN) && ls -d l*)
	$(BARE)/python -c "import llama_index.vector_stores.faiss"

pythons:
	@$(PYTHON) .ci/interpreters.py missing
	@set -e; for version in $$($(PYTHON) .ci/interpreters.py others); do $(MAKE) --no-print-directory "python$$version"; done

python3.%: $(VENVS)/3.%/.ready
	$(VENVS)/3.$*/bin/python $(PYTEST) tests/test_packaging.py tests/test_public_names.py tests/test_other_encoder.py \
		tests/cli/test_app.py tests/files/test_sources.py tests/files/test_tables.py tests/cli/test_highlight.py tests/demo/test_docstrings.py

# Every test on another Python; CI runs it where the registries have a CPU build of torch for it.
all-tests-3.%: $(VENVS)/3.%/.ready
	$(VENVS)/3.$*/bin/python $(PIP_INSTALL) "$(WHEEL)[$(EXTRAS)]" --group test
	$(VENVS)/3.$*/bin/python $(PYTEST)

# What takes time to install for the sessions above: CI does it beside the tests.
environments: $(VENVS)/bare/.ready
	@set -e; for version in $$($(PYTHON) .ci/interpreters.py others); do \
		$(MAKE) --no-print-directory "$(VENVS)/$$version/.ready"; done

bench: $(VENV)/.with-test
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" --quick; done

# Takes long, since each install line has an environment of its own; `make slow` runs the examples too, in its own.
examples: $(THIN)/.built
	$(PYTHON) .ci/examples.py --environments $(VENVS)/examples --wheels $(VENVS)/dist $(THIN)/built -- $(EXAMPLES)

# Resolves again for every Python that is supported, from metadata alone.
constraints: $(VENV)/.with-test
	$(INSTALL) uv
	printf '%s\n' build editables hatchling pip uv | $(BIN)/uv pip compile pyproject.toml - --all-extras --group dev \
		--universal --python-version 3.10 --no-annotate --custom-compile-command "make constraints" \
		--quiet --output-file constraints.txt

clean:
	rm -rf $(VENV) $(VENVS) dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENVS)/dist/.built: $(SOURCES)
	$(PYTHON) -m venv $(VENVS)/tools
	@$(VENVS)/tools/bin/python $(PIP_INSTALL) build hatchling jinja2
	@rm -rf $(VENVS)/dist
	$(VENVS)/tools/bin/python -m build --no-isolation --outdir $(VENVS)/dist . >/dev/null
	@touch $@

$(THIN)/.built: $(VENVS)/dist/.built $(shell find distributions -type f -not -name '*.pyc')
	$(VENVS)/tools/bin/python distributions/render_distributions.py $(THIN)
	@set -e; for project in $(THIN)/*/; do \
		$(VENVS)/tools/bin/python -m build --no-isolation --outdir $(THIN)/built "$$project" >/dev/null; done
	@touch $@

$(VENVS)/bare/.ready: $(VENVS)/dist/.built constraints.txt
	$(PYTHON) -m venv $(VENVS)/bare
	@$(INSTALL_BARE) $(NEW_PIP)
	@$(INSTALL_BARE) "$(WHEEL)[evaluate,starter]" --group pytest
	@$(INSTALL_BARE) --force-reinstall --no-deps "$(WHEEL)"
	@touch $@

# What needs no torch: the index with an encoder of one's own, the command line, the demo's corpus.
$(VENVS)/3.%/.ready: $(VENVS)/dist/.built constraints.txt
	"$$($(PYTHON) .ci/interpreters.py path 3.$*)" -m venv $(VENVS)/3.$*
	@$(VENVS)/3.$*/bin/python $(PIP_INSTALL) $(NEW_PIP)
	@$(VENVS)/tools/bin/python .ci/light.py $(VENVS)/dist >$(VENVS)/3.$*/light.txt
	@$(VENVS)/3.$*/bin/python $(PIP_INSTALL) --no-compile --requirement $(VENVS)/3.$*/light.txt --group pytest
	@$(VENVS)/3.$*/bin/python $(PIP_INSTALL) --force-reinstall --no-deps "$(WHEEL)"
	@touch $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed; give it by PYTHON=..." if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.with-all: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	@echo "Installing rerank-integrations[all] into $(VENV) ..."
	@$(INSTALL) --editable '.[all]'
	@touch $@

$(VENV)/.with-test: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	@echo "Installing rerank-integrations[$(EXTRAS)] and the group test into $(VENV) ..."
	@$(INSTALL) $(NEW_PIP)
	@$(INSTALL) --editable '.[$(EXTRAS)]' --group test
	@touch $@

# An extra, not a group: colbert-ai is of use to users, who may ask for it beside the package.
$(VENV)/.with-colbert-ai: $(VENV)/.with-test
	@echo "Installing colbert-ai into $(VENV) ..."
	@$(INSTALL) --editable '.[colbert-ai]'
	@touch $@

$(VENV)/.with-%: $(VENV)/.with-test
	@echo "Installing the group $* into $(VENV) ..."
	@$(INSTALL) --group $*
	@touch $@
