# make setup          create .venv from requirements.lock (again only when the lock or pyproject changes)
# make demo           run experiments/quickstart.yaml and show its results
# make test           lint, types, tests: 21 minutes on two slow cores, to be below ten
# make test-cluster   tests that bring up whole clusters and break them: below 15 minutes

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Idle OpenMP threads that spin steal the cores from the other hosts.
export OMP_WAIT_POLICY = PASSIVE

# NumPy's products of matrices have other last bits with two threads than with one, on some CPUs. Ray
# gives its workers one; tests compare bytes of prepared files with theirs.
export OPENBLAS_NUM_THREADS = 1

# Every process of Ray imports the package: the first one leaves it compiled for the others.
unexport PYTHONDONTWRITEBYTECODE

# Two processes; tests/conftest.py says which tests stay together.
TESTS := $(BIN)/pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder

.PHONY: setup demo test types unit test-cluster
.DELETE_ON_ERROR:

setup: $(STAMP)

# Debian without python3-venv has no ensurepip: there, the system's pip fills the environment.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(STAMP)
	rm -rf runs/demo
	$(BIN)/physfed run experiments/quickstart.yaml --out runs/demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --jobs 2 types unit

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(TESTS) -m "not cluster"

test-cluster: $(STAMP)
	$(TESTS) -m cluster
