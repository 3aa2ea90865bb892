# `make demo` and `make test` need Python 3.10 or newer and nothing else: they make their own
# virtual environment. `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= output/demo
COMPARE ?= output/compare
SITE ?= output/site
# More words for pip or pytest, for example PIP_ARGS="--extra-index-url URL", PYTEST_ARGS="-k hog".
PIP_ARGS ?=
PYTEST_ARGS ?=
# Options of tools/gpu_report.py, for example REPORT_ARGS="--no-tests --minutes 4".
REPORT_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DOCS := $(VENV)/.installed_docs
# A worker a core; files with fixtures stay together until a worker runs out of tests.
# PYTEST_ARGS="-n 0" runs one test after the other.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: help install demo demo-ava demo-image compare compare-motion test test-all gpu-report docs lint clean

help:
	@echo "make demo      render motion clips, pre-train, fine-tune, compare (writes $(OUTPUT))"
	@echo "make demo-ava  boxes and actions: the same pre-training against scratch, in AVA's form"
	@echo "make demo-image  HOG, pixels and MAE on images of shapes: fine-tuned, linear probe, kNN"
	@echo "make compare   five targets on images of shapes, one page (writes $(COMPARE))"
	@echo "make compare-motion  HOG, pixels and training from scratch on motion clips, one page"
	@echo "make test      the tests that take seconds"
	@echo "make test-all  every test that needs no GPU"
	@echo "make gpu-report  the tests that need a GPU, and its speed (writes docs/benchmarks_gpu.md)"
	@echo "make docs      the documentation as a site (writes $(SITE))"
	@echo "make lint      ruff, mypy, import-linter"
	@echo "make install   only the virtual environment ($(VENV))"
	@echo "make clean     remove .venv, caches and output/demo"
	@echo "PYTHON=python3.12 picks the interpreter, VENV=folder the environment."

install: $(INSTALLED)

# One pip call, so that the constraints hold for torch and for everything else alike. The stamp
# comes last: an interrupted installation is continued by the next call.
$(INSTALLED): setup.py pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || \
		{ echo "make: there is no '$(PYTHON)'; name a Python 3.10 or newer with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "make: $$($(PYTHON) --version 2>&1) is too old; name a Python 3.10 or newer with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[test]'
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[docs]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python datasets/make_motion_clips.py --output $(OUTPUT)/data
	$(BIN)/python tools/demo.py --output $(OUTPUT)

demo-ava: $(INSTALLED)
	$(BIN)/python datasets/make_motion_clips.py --output $(OUTPUT)/data
	$(BIN)/python datasets/make_motion_boxes.py --output $(OUTPUT)/ava
	$(BIN)/python tools/demo_ava.py --output $(OUTPUT)

demo-image: $(INSTALLED)
	$(BIN)/python datasets/make_shape_images.py --output $(OUTPUT)/images
	$(BIN)/python tools/demo_image.py --output $(OUTPUT)

compare: $(INSTALLED)
	$(BIN)/python datasets/make_shape_images.py --output $(COMPARE)/images
	$(BIN)/python tools/compare.py --recipe configs/compare/shapes.yaml \
		--data $(COMPARE)/images --output $(COMPARE)/shapes

compare-motion: $(INSTALLED)
	$(BIN)/python datasets/make_motion_clips.py --output $(COMPARE)/clips
	$(BIN)/python tools/compare.py --recipe configs/compare/motion.yaml \
		--data $(COMPARE)/clips --output $(COMPARE)/motion

test: $(INSTALLED)
	$(PYTEST) -m "not slow and not cuda" $(PYTEST_ARGS)

test-all: $(INSTALLED)
	$(PYTEST) -m "not cuda" $(PYTEST_ARGS)

gpu-report: $(INSTALLED)
	$(BIN)/python tools/gpu_report.py $(REPORT_ARGS)

docs: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir $(SITE)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv output/demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
