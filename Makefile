# Every target sets up .venv by itself; it needs Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= tune_configs/forest_uav_ppo.yaml
KILLS  ?= 100

# Training runs of benchmarks/reproductions.yaml: TASK=spread or TASK=spread/qmix; SEEDS and JOBS as the script says.
REPRODUCE = $(TASK) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(JOBS),--jobs $(JOBS))

.PHONY: help train test test-long dist-check campaign lint docs site bench bench-quantum bench-training reproduce setup clean

help:  ## what there is to make (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s%s\n", $$1, $$2 }' Makefile

train: $(VENV)/.training  ## train CONFIG; results lie in runs/
	$(BIN)/rllib train --config $(CONFIG)

test: setup  ## all tests, a file at a time on each of two cores, under twelve minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-long: setup  ## the tests that take minutes: runs that are killed and resumed
	$(BIN)/python -m pytest -q -m long

dist-check: setup  ## build sdist and wheel, install the wheel into an empty folder, use it from another
	$(BIN)/python -m pytest -q -m "long or not long" tests/test_distribution.py

campaign: setup  ## hostile experiments and settings; then runs that are killed at random moments, KILLS times, a minute each
	$(BIN)/python benchmarks/campaign_settings.py
	$(BIN)/python benchmarks/campaign.py kills --kills $(KILLS)

lint: setup  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup  ## write the pages that come from code and raw results: environments, settings, results, the README's headline, pretrained policies and their cards
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/settings_tables.py
	$(BIN)/python docs/results_page.py
	$(BIN)/python docs/policy_cards.py

site: setup  ## build the documentation's site into site/; to read it: python -m http.server -d site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: setup  ## environment throughput beside other environments, circuits beside PennyLane, the operator's contraction
	$(BIN)/python benchmarks/env_throughput.py
	$(BIN)/python benchmarks/circuits.py
	$(BIN)/python benchmarks/contraction.py

bench-quantum: setup  ## the Q operator and circuits against matched controls, hours
	$(BIN)/python benchmarks/quantum_controls.py operator
	$(BIN)/python benchmarks/quantum_controls.py circuits

bench-training: setup  ## training beside RLlib's own path and plain torch, about a quarter of an hour
	$(BIN)/python benchmarks/training_throughput.py

reproduce: setup  ## train all of a TASK anew beside published figures (SEEDS of each, JOBS at a time), hours
	$(BIN)/python benchmarks/reproduce.py $(REPRODUCE)

setup: $(VENV)/.ready  ## everything: tests, examples, benchmarks, style

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# What training needs and no more.
$(VENV)/.training: setup.cfg setup.py constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "QIO needs Python 3.11 or newer; say which with: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[rllib]'
	@touch $@

$(VENV)/.ready: $(VENV)/.training
	$(PIP) -e '.[rllib,plots,test,examples,bench,dev,docs]'
	@touch $@

clean:  ## remove what was set up (not runs/)
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
