# Every target begins with `setup`, which does nothing the second time.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
UV := $(VENV)/uv/bin/uv
STAMP := $(VENV)/.installed
# Imported once, so that later processes find them compiled: about a third of all code installed, and what takes long to compile.
IMPORTED := albumentations fastapi highdicom matplotlib.pyplot mlflow.pyfunc monai.inferers monai.networks.nets monai.transforms \
	nibabel optuna ray.serve ray.train.torch ray.tune segmentation_models_pytorch skimage.measure sklearn torch._dynamo

export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export NO_ALBUMENTATIONS_UPDATE := 1
unexport PYTHONDONTWRITEBYTECODE # each process of the tests would compile every module anew

.PHONY: setup demo test test-alone test-on-ray test-slow lint docs bench serve page lock system-packages

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "GlioFlow needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/uv uv==$(UV_VERSION)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -W ignore -c 'import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]' $(IMPORTED)
	@touch $@

lock: ## resolve every version anew (needs any uv)
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --upgrade --quiet --output-file requirements.lock

demo: setup
	@$(BIN)/glioflow demo $(if $(DATA),--data $(DATA))

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: setup ## into docs/_build/html; every warning is an error
	$(BIN)/python -m sphinx -q -W -b html -d docs/_build/doctrees docs docs/_build/html

# Two at a time. Ray's tests wait more than they compute, so the others run beside them, in processes that start no Ray.
# `docs` is not among them: a test of `test-alone` builds the site just so.
# The others yield to Ray's, which take longer; Ray itself lets its workers yield to others (nice 15).
test: setup
	@$(MAKE) --no-print-directory --jobs=2 lint test-on-ray test-alone

test-on-ray: setup ## a file whose tests start Ray has the word `ray` (tests/conftest.py sees to it)
	$(BIN)/python -m pytest --numprocesses=2 --max-worker-restart=0 --dist=loadfile --durations=10 \
		-m "ray and not (slow or real or gpu)" $$(grep -rlw --include='test_*.py' ray tests)

test-alone: setup
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --max-worker-restart=0 --dist=loadfile \
		--durations=10 -m "not (slow or real or gpu or ray)" tests

test-slow: lint
	$(BIN)/python -X faulthandler -m pytest --numprocesses=2 --max-worker-restart=0 --dist=loadfile --durations=25 \
		-m "slow or real or gpu" tests

bench: setup ## on a quiet machine; WHAT names other programs of benchmarks/
	@for each in $(or $(WHAT),memory measures search serving); do $(BIN)/python benchmarks/$$each.py || exit 1; done

serve: setup
	$(BIN)/glioflow serve

page: setup
	$(BIN)/glioflow page

system-packages: ## what test-slow needs of Debian's packages, once, as root
	apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql chromium chromium-driver iproute2
