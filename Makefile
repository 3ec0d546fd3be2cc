# Everything runs in an environment of its own, .venv, which is made on first use.
# On the command line: PYTHON=python3.11 (gets .venv-3.11), GPU=1 (gets .venv-gpu), ARGS='...', DATASET=...

DATASET ?= tnews
ARGS ?=

REQUIREMENTS := requirements$(if $(filter 1 yes true,$(GPU)),-gpu).txt

# Prints the version of a Python that starts, can make environments and is one that Paddle 2.6 is built for.
CHECK := import ensurepip, sys; v = sys.version_info; assert (3, 10) <= v[:2] <= (3, 12); print("%d.%d.%d" % v[:3])

# 3.10 is preferred: FastTokenizer has no wheel for later ones. A python3.10 of pyenv may be there and yet not start.
ifneq ($(PYTHON),)
BASE := $(PYTHON:~/%=$(HOME)/%)
else
BASE := $(shell \
  pyenv="$${PYENV_ROOT:-$$HOME/.pyenv}/versions"; \
  for version in 3.10 3.11 3.12; do \
    newest=$$(cd "$$pyenv" && ls -d $$version.* | sort -t. -k3n | tail -n 1); \
    for python in "python$$version" "$$pyenv/$$newest/bin/python"; do \
      "$$python" -c '$(CHECK)' >/dev/null && echo "$$python" && exit; \
    done; \
  done 2>/dev/null; \
  echo python3)
endif
VERSION := $(shell "$(BASE)" -c '$(CHECK)' 2>/dev/null)
NO_PYTHON := $(if $(PYTHON),PYTHON=$(PYTHON) does not fit,No fitting Python was found): \
  Python 3.10 (best), 3.11 or 3.12 with its venv module is needed; name one with PYTHON=/path/to/python3.10

VENV := .venv$(if $(PYTHON),-$(basename $(VERSION)))$(REQUIREMENTS:requirements%.txt=%)
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install -qq --use-pep517
# Written when an installation is complete: one that was cut short starts again.
READY := $(VENV)/ready-$(VERSION)
DEV_READY := $(VENV)/ready-dev-$(VERSION)
# Triton's Python backend has an environment of its own: its packages need newer ones than Paddle takes.
TRITON_VENV := .venv-triton$(if $(PYTHON),-$(basename $(VERSION)))
TRITON_READY := $(TRITON_VENV)/ready-$(VERSION)

.PHONY: help quickstart test triton lint format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile
	@echo "Options: PYTHON=python3.11  GPU=1 (CUDA 11.8)  DATASET=$(DATASET)  ARGS='...' (passed on)"

quickstart: $(READY) ## Run the example: examples/quickstart.py on DATASET
	$(PY) examples/quickstart.py --dataset $(DATASET) $(ARGS)

test: $(DEV_READY) ## Run the tests; ARGS='-k name' picks some
	@# Where it cannot be made (nvidia-pytriton is for x86-64 Linux), the tests that need it are skipped, and say why.
	-@$(MAKE) --no-print-directory triton
	TRITON_PYTHON=$(TRITON_VENV)/bin/python $(PY) -m pytest tests $(ARGS)

triton: $(TRITON_READY) ## Make the environment in which Triton runs without a container

lint: $(DEV_READY) ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(DEV_READY) ## Mend style and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

$(READY): $(REQUIREMENTS)
	@$(if $(VERSION),,echo "$(NO_PYTHON)" >&2; exit 1)
	@echo "Installing $(REQUIREMENTS) into $(VENV) (Python $(VERSION)): a few minutes, about $(if $(findstring gpu,$(VENV)),5,2) GB, once."
	@rm -rf $(VENV)
	@"$(BASE)" -m venv $(VENV)
	@$(PIP) -r $(REQUIREMENTS)
	@touch $@

$(DEV_READY): requirements-dev.txt $(READY)
	@echo "Installing $< into $(VENV)."
	@$(PIP) -r $<
	@touch $@

$(TRITON_READY): deploy/triton_serving/requirements_pytriton.lock.txt
	@$(if $(VERSION),,echo "$(NO_PYTHON)" >&2; exit 1)
	@echo "Installing $< into $(TRITON_VENV) (Python $(VERSION)): about 750 MB, once."
	@rm -rf $(TRITON_VENV)
	@"$(BASE)" -m venv $(TRITON_VENV)
	@$(TRITON_VENV)/bin/python -m pip --disable-pip-version-check install -qq --require-hashes -r $<
	@touch $@

UV := .venv-lock/bin/uv pip compile -q --universal --python-version 3.10 --fork-strategy fewest \
  --annotation-style line --custom-compile-command "make lock" $(ARGS)

lock: ## Write the locked requirements anew; ARGS=--upgrade for newer versions
	@$(if $(VERSION),,echo "$(NO_PYTHON)" >&2; exit 1)
	@test -x .venv-lock/bin/uv || { "$(BASE)" -m venv .venv-lock && .venv-lock/bin/python -m pip install -qq uv; }
	$(UV) requirements.in -o requirements.txt
	$(UV) -c requirements.txt requirements-gpu.in -o requirements-gpu.txt
	$(UV) -c requirements.txt requirements-dev.in -o requirements-dev.txt
	for list in deploy/*/requirements*.txt; do case $$list in *.lock.txt) ;; *) \
	  $(UV) --generate-hashes $$list -o $${list%.txt}.lock.txt || exit 1 ;; esac; done

clean: ## Remove environments and caches (models and results stay)
	rm -rf .venv .venv-* .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
