# Everything runs in an environment of its own, .venv, which is made on first use.
# On the command line: PYTHON=python3.11 (gets .venv-3.11), GPU=1 (gets .venv-gpu), ARGS='...', DATASET=...

DATASET ?= tnews
ARGS ?=

REQUIREMENTS := requirements$(if $(filter 1 yes true,$(GPU)),-gpu).txt

ifneq ($(PYTHON),)
override PYTHON := $(PYTHON:~/%=$(HOME)/%)
VERSION := $(shell "$(PYTHON)" -c 'import ensurepip, sys; v = sys.version_info; assert (3, 10) <= v[:2] <= (3, 12); \
  print("-%d.%d" % v[:2])' 2>/dev/null)
$(if $(VERSION),,$(error PYTHON=$(PYTHON) does not fit: Python 3.10 (best), 3.11 or 3.12 with its module venv is needed))
endif

VENV := .venv$(VERSION)$(REQUIREMENTS:requirements%.txt=%)
PY := $(VENV)/bin/python
# Written when an installation is complete. Their names hold the content of what was installed, so that neither a new
# checkout nor another branch with the same requirements installs again.
stamp = $(shell cksum < $(1) | tr ' ' -)
READY := $(VENV)/ready-$(call stamp,$(REQUIREMENTS))
DEV_READY := $(VENV)/ready-dev-$(call stamp,requirements-dev.txt)
# Triton's Python backend has an environment of its own: its packages need newer ones than Paddle takes.
TRITON_VENV := .venv-triton$(VERSION)
TRITON_LOCK := deploy/triton_serving/requirements_pytriton.lock.txt
TRITON_READY := $(TRITON_VENV)/ready-$(call stamp,$(TRITON_LOCK))
# So has Ray, whose packages need a newer pyarrow.
RAY_VENV := .venv-ray$(VERSION)
RAY_LOCK := deploy/predictor/requirements_ray.lock.txt
RAY_READY := $(RAY_VENV)/ready-$(call stamp,$(RAY_LOCK))
# What benchmarks/peers.py measures beside this project; the newest ONNX Runtime has no wheel for Python 3.10.
PEERS_VENV := .venv-peers
PEERS_LIST := benchmarks/requirements_peers.txt
PEERS_READY := $(PEERS_VENV)/ready-$(call stamp,$(PEERS_LIST))
# The programs of `make bench`, with the flags of a quick look that the table of benchmarks/README.md has for them.
BENCH ?= compression_speed predictor_speed tokenizer_fuzz serving_load
QUICK := benchmarks/results/quick

.PHONY: help quickstart test bench accuracy triton ray peers lint format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile
	@echo "Options: PYTHON=python3.11  GPU=1 (CUDA 11.8)  DATASET=$(DATASET)  ARGS='...' (passed on)"

quickstart: $(READY) ## Run the example: examples/quickstart.py on DATASET
	$(PY) examples/quickstart.py --dataset $(DATASET) $(ARGS)

test: $(DEV_READY) ## Run the tests in two processes; ARGS='-k name' picks some, ARGS='-n 0' runs them in one
	@# Where one cannot be made (nvidia-pytriton is for x86-64 Linux), the tests that need it are skipped, and say why.
	-@$(MAKE) --no-print-directory triton
	-@$(MAKE) --no-print-directory ray
	TRITON_PYTHON=$(CURDIR)/$(TRITON_VENV)/bin/python RAY_PYTHON=$(CURDIR)/$(RAY_VENV)/bin/python \
	  $(PY) -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(DEV_READY) ## Run the short benchmarks, some minutes; BENCH='predictor_speed' picks some
	@mkdir -p $(QUICK)
	@set -e; for name in $(BENCH); do \
	  flags=$$(sed -n 's/^| \[`'$$name'\.py`\].*| `\(.*\)` |$$/\1/p' benchmarks/README.md); \
	  [ -n "$$flags" ] || { echo "$$name: no quick look in the table of benchmarks/README.md" >&2; exit 2; }; \
	  echo "$(PY) benchmarks/$$name.py $$flags"; \
	  $(PY) benchmarks/$$name.py $$flags > $(QUICK)/$$name.part; \
	  mv $(QUICK)/$$name.part $(QUICK)/$$name.md; \
	done
	@echo "What they printed is in $(QUICK)/*.md. It shows that they work; for figures, run them without these flags."

accuracy: $(DEV_READY) ## Measure what compression costs: benchmarks/clue.py; ARGS='--data_dir DIR --quick'
	$(PY) benchmarks/clue.py $(ARGS)

triton: $(TRITON_READY) ## Make the environment in which Triton runs without a container

ray: $(RAY_READY) ## Make the environment in which Ray Data runs

peers: $(PEERS_READY) ## Make the environment of benchmarks/peers.py: PyTorch, Optimum and others

lint: $(DEV_READY) ## Check style, formatting, and the types of deploy/
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(DEV_READY) ## Fix style and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

$(READY):
	@rm -f $(VENV)/ready-*
	@.ci/environment $(VENV) "$(PYTHON)" $(REQUIREMENTS) --use-pep517
	@touch $@

$(DEV_READY): $(READY)
	@rm -f $(VENV)/ready-dev-*
	@.ci/environment $(VENV) "$(PYTHON)" requirements-dev.txt --use-pep517
	@touch $@

$(TRITON_READY):
	@rm -f $(TRITON_VENV)/ready-*
	@.ci/environment $(TRITON_VENV) "$(PYTHON)" $(TRITON_LOCK) --require-hashes
	@touch $@

$(PEERS_READY):
	@rm -f $(PEERS_VENV)/ready-*
	@.ci/environment $(PEERS_VENV) "$(or $(PYTHON),$(shell command -v python3.11 || command -v python3.12))" $(PEERS_LIST)
	@touch $@

$(RAY_READY):
	@rm -f $(RAY_VENV)/ready-*
	@.ci/environment $(RAY_VENV) "$(PYTHON)" $(RAY_LOCK) --require-hashes
	@touch $@

UV := .venv-uv/bin/uv pip compile -q --universal --python-version 3.10 --fork-strategy fewest \
  --annotation-style line --custom-compile-command "make lock" $(ARGS)

lock: ## Write the locked requirements anew; ARGS=--upgrade for newer versions
	@test -x .venv-uv/bin/uv || { python3 -m venv .venv-uv && .venv-uv/bin/python -m pip install -qq uv; }
	$(UV) requirements.in -o requirements.txt
	$(UV) -c requirements.txt requirements-gpu.in -o requirements-gpu.txt
	$(UV) -c requirements.txt requirements-dev.in -o requirements-dev.txt
	for list in deploy/*/requirements*.txt; do case $$list in *.lock.txt) ;; *) \
	  $(UV) --generate-hashes $$list -o $${list%.txt}.lock.txt || exit 1 ;; esac; done

clean: ## Remove environments and caches (models and results stay)
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
