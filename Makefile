# A machine with Python 3.11 or newer, git and make needs nothing else; the first run makes .venv here.
#   make run    the dashboard in the browser           make test   everything that is checked
#   make lab    JupyterLab with the notebooks          make bench  how fast it is
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run lab test bench fast mutants fuzz lint format shots fidelity lock clean python environment test-environment

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -3

run: environment
	@$(BIN)/explorer serve

lab: environment
	@$(BIN)/jupyter lab notebooks

# On the compiled engine, as most users run it; a test compares it with the files.
test: test-environment lint fast
	@$(BIN)/python -m pytest -q -n auto

bench: test-environment fast
	@$(BIN)/python tests/bench/run.py

# The engine compiled, where there is a C compiler. `make run` does so the first time; this, after the engine was edited.
fast: environment
	@$(BIN)/python assets/setup/compile_engine.py

# Damaged logs and recordings, ten minutes of them; `make fuzz SECONDS=60` for less.
fuzz: test-environment
	@$(BIN)/python tests/fuzz.py $(SECONDS)

lint: test-environment
	@$(BIN)/ruff check --output-format concise
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy

format: test-environment
	@$(BIN)/ruff check --fix --output-format concise
	@$(BIN)/ruff format

# Wrong engines, and who notices: an hour on two slow cores.
mutants: test-environment
	@$(BIN)/python tests/mutation.py

# Pictures of the running page, into build/shots: ten states in three themes, three sizes. `make shots ONLY=kernels`
# takes one of the states, `make shots ONLY=readme` the pictures of the README.
shots: test-environment
	@$(BIN)/python tests/browser/shots.py $(ONLY)

# The page that says what is modelled and what backs it.
fidelity: test-environment
	@$(BIN)/python tests/fidelity.py

# New pins, from what pyproject.toml asks for; the second file keeps the versions of the first.
lock: test-environment
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 \
		pyproject.toml --extra build -o requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 \
		pyproject.toml --extra build --extra test -c requirements.txt -o requirements-test.txt

clean:
	rm -rf .venv .run build dist

environment: python
	@$(PYTHON) assets/setup/environment.py run

test-environment: python
	@$(PYTHON) assets/setup/environment.py test

python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. On Debian 12 or later: apt-get install python3 python3-venv"; exit 1; }
