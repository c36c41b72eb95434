# make train             learn Pendulum with PPO:   .venv is made and filled on the first call
# make train ALG=ppo ARGS="--env CartPole-v1"       another algorithm, other flags
# make test | lint | mutants | bench | docs-test      (make mutants ARGS="ppo sac": those folders')
#                        (make bench ARGS="ppo --kind solve": see benchmarks/README.md)
# make results           what each folder reaches, and its weights, bands and curves, from 115 runs
#                        (make results ARGS="ppo sac": those folders')
# make notebooks         runs them from top to bottom and writes what comes out into them
# make clean             removes the environments and caches; what was trained, in model/ and image/, stays
# make docs              the site, in site/: each formula beside its lines, policies to play with

PYTHON ?= python3
VENV ?= .venv
ALG ?= ppo
ARGS ?=
BIN := $(VENV)/bin
PEERS ?= .venv-bench
DOCS ?= .venv-docs

.PHONY: train test lint mutants bench results notebooks docs docs-test clean

train: $(VENV)/installed
	$(BIN)/python $(ALG)/main.py --train $(ARGS)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mutants: $(VENV)/installed-dev
	$(BIN)/python tests/mutants.py $(ARGS)

bench: $(VENV)/installed-dev $(PEERS)/installed
	$(BIN)/python benchmarks/bench.py --peers $(PEERS)/bin/python $(ARGS)

results: $(VENV)/installed
	$(BIN)/python benchmarks/results.py $(ARGS)

notebooks: $(VENV)/installed-dev
	$(BIN)/python notebooks/execute.py

docs: $(DOCS)/installed
	$(DOCS)/bin/python docs/site/build.py

docs-test: $(DOCS)/installed
	$(DOCS)/bin/python -m pytest docs/site/tests

clean:
	rm -rf $(VENV) $(PEERS) $(DOCS) site .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: requirements.txt
	$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and 'Python 3.10 to 3.13 is needed: make train PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements/dev.txt requirements/notebooks.txt requirements/mujoco.txt requirements/ray.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	touch $@

$(PEERS)/installed: benchmarks/requirements.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'JAX needs Python 3.11 or newer: make bench PYTHON=python3.11')"
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

$(DOCS)/installed: requirements/docs.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: make docs PYTHON=python3.11')"
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	touch $@
