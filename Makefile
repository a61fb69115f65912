# Every target sets up what it needs: a virtual environment in .venv, nothing outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
VIDEOS ?=
CLIPS := $(if $(VIDEOS),$(VIDEOS),demo/videos)

.PHONY: help demo test test-long test-quick chaos lint serve bench bench-check objectstore clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "longreel needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }
	@echo "setting up $(VENV); the first time takes a few minutes"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml constraints.txt
	@$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime $(VENV)/.reference $(VENV)/.system
	@$(PIP) -e '.[test]'
	@touch $@

# Apart, for the reference of open models alone: built for CUDA as it is, it would stop
# transformers from importing beside a CPU build of torch.
$(VENV)/.reference: $(VENV)/.runtime
	@$(PIP) --no-deps --upgrade --target $(VENV)/torchvision torchvision==0.28.0
	@touch $@

# A browser and a Prometheus, where they may be installed; tests that need them say so otherwise.
$(VENV)/.system: $(VENV)/bin/python
	@sh infra/system-packages.sh
	@touch $@

$(VENV)/.bench: $(VENV)/.runtime $(VENV)/.reference
	@$(PIP) -e '.[bench]'
	@# Its bound on pyarrow is below our pin, and nothing of what it does here passes through that.
	@$(PIP) --no-deps daft==0.7.26
	@touch $@

demo: $(VENV)/.runtime ## Summarize sample videos (or VIDEOS=/path) and write report.html
	@$(if $(VIDEOS),,$(BIN)/python -m pipelines.samples demo/videos)
	@rm -rf demo/rows
	@$(BIN)/longreel summarize "$(CLIPS)" --output demo/rows || [ $$? -eq 3 ]
	@$(BIN)/longreel report demo/rows --output report.html --title "Longreel demo"

test: $(VENV)/.test ## Run all tests but those of test-long and chaos
	$(BIN)/python -m pytest -q -m "not long and not chaos" -n 3

test-long: $(VENV)/.test ## Run the tests of guarantees at length, for an hour or so
	$(BIN)/python -m pytest -q -m "long and not chaos" -n 2

test-quick: $(VENV)/.test ## Run the tests that start no cluster and no server
	$(BIN)/python -m pytest -q -m "not slow and not ray and not objectstore and not long and not chaos" -n 2

chaos: $(VENV)/.test ## Kill replicas, the directory and nodes under load, for ten minutes or so
	$(BIN)/python -m pytest -q -m chaos

lint: $(VENV)/.test ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

serve: $(VENV)/.runtime ## Serve the bundled model over HTTP on port 8000
	$(BIN)/longreel serve

bench: $(VENV)/.bench ## Run the short form of every bench in under 30 minutes and write the pages of figures
	$(BIN)/python -m bench.all --quick

bench-check: $(VENV)/.bench ## Fail where README, docs or a plot say what no result in bench/results/ says
	$(BIN)/python -m bench.check

objectstore: $(VENV)/.test ## Run an S3-compatible store on port 8075 for trying s3:// paths
	$(BIN)/python -m infra.objectstore --port 8075

clean: ## Remove what the targets made, the environment included
	rm -rf $(VENV) demo report.html
