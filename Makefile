# Each target does all of its own set-up in .venv; nothing else has to be typed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# One thread a process: two cores are shared by Ray's workers and by pytest.
export OMP_NUM_THREADS ?= 1

# Test files shared out over processes; one file's tests stay together, as do their fixtures. In the order of
# their names: by the number of tests, a file of one long test would begin when all others have ended.
PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow lint bench chaos gpu clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt 'torch==2.13.0'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[offline,demo,serve,dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/affuse demo

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# Storms over encode: make chaos SEEDS=50
SEEDS ?= 10
chaos: $(STAMP)
	$(BIN)/python tests/chaos/storm.py --seeds $(SEEDS)

# Rates of a machine with a GPU; where nothing can be installed: make gpu GPU_PYTHON=python3 WHEELS=folder
gpu: $(if $(GPU_PYTHON),,$(STAMP))
	$(or $(GPU_PYTHON),$(BIN)/python) tests/gpu/run.py $(if $(WHEELS),--wheels $(WHEELS))

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
