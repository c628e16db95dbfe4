# One entry point per chore; CI calls the same ones.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SPREAD := --dist loadfile --no-loadscope-reorder
DURATIONS := --durations=20
BEFORE := 72dbaa5  # what `make bench` compares with
COVERAGE := COVERAGE_FILE=$(CURDIR)/build/coverage/data $(VENV)/bin/coverage
TESTED = $(PY) -m pytest

.PHONY: demo test test-all torture check proto bench bench-setup wheel clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r constraints.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(VENV)/.ready
	@$(PY) -m bench.demo

# Every step: under ten minutes on two cores.
test: $(VENV)/.ready check
	mkdir -p -m 1777 build/coverage
	$(TESTED) -m "not slow and not alone and not torture" -n 3 $(SPREAD) $(DURATIONS)

# What CI runs: the same, with what it covers held against floors; then kills, storms and attacks.
# Some forty minutes.
test-all: TESTED = rm -f build/coverage/data*; $(COVERAGE) run -m pytest
test-all: test
	$(COVERAGE) combine -q
	$(COVERAGE) json -q -o build/coverage/found.json
	$(PY) -m tests.coverage build/coverage/found.json
	$(PY) -m pytest -m "slow and not alone" -n 4 $(SPREAD) $(DURATIONS)  # they wait more than they compute
	$(PY) -m pytest -m alone $(DURATIONS)

# Long sweeps; writes docs/reliability.md.
torture: $(VENV)/.ready
	$(PY) -m tests.torture

check: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

proto: $(VENV)/.ready
	$(PY) -m tests.architecture.stubs --write
	$(PY) -m tests.architecture.api_reference --write

wheel: $(VENV)/.ready
	$(PY) -m build --no-isolation --wheel --outdir dist .

bench-setup: $(VENV)/.ready
	bench/setup.sh

# Two hours. `lines` needs root and /dev/net/tun, `sealed` npm, and most of it `make bench-setup`.
bench: $(VENV)/.ready
	$(PY) -m bench.run
	$(PY) -m bench.against $(BEFORE)
	$(PY) -m bench.small
	$(PY) -m bench.grown
	$(PY) -m bench.more
	$(PY) -m bench.routes
	$(PY) -m bench.relays
	$(PY) -m bench.directory
	$(PY) -m bench.sealed
	$(PY) -m bench.lines

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
