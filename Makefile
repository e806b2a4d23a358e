# make race and make test need only Python 3.11 or newer, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RACE_FLAGS ?=

.PHONY: race test lint bench fidelity clean

race: $(VENV)/installed
	$(BIN)/alleycat race $(RACE_FLAGS)

test: lint
	$(BIN)/python -m pytest $(TEST_FLAGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/bench-installed
	$(BIN)/python -m loadtests.bench $(BENCH_FLAGS)

fidelity: $(VENV)/installed
	$(BIN)/python -m loadtests.fidelity $(FIDELITY_FLAGS)

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Alleycat needs Python 3.11 or newer; name one with PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

# The peers run in an environment of their own, so that what they require never changes ours.
# numpy, typer and msgspec are for the telemetry, which async-kinesis makes as our generator does.
$(VENV)/bench-installed: $(VENV)/installed
	$(PYTHON) -m venv .bench/venv
	.bench/venv/bin/python -m pip install --quiet 'ministack>=1.5,<2' 'moto[server]>=5.1,<6' 'amqtt>=0.11,<1' 'async-kinesis>=3.0,<4' 'numpy>=2.0,<3' 'typer>=0.15,<1' 'msgspec>=0.19,<1'
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --no-package-lock --prefix .bench/node kinesalite@3 >/dev/null 2>&1 || echo "kinesalite could not be installed; it is left out"; fi
	@touch $@

# `sam build` calls these (Metadata: BuildMethod: makefile): the package and what it requires.
build-%:
	cp -R consumers "$(ARTIFACTS_DIR)/"
	rm -rf "$(ARTIFACTS_DIR)/consumers/runtime"
	$(PYTHON) -m pip install --requirement consumers/requirements.txt --target "$(ARTIFACTS_DIR)"

clean:
	rm -rf $(VENV) .bench build dist *.egg-info
