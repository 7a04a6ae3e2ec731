# `make up` and `make test` are all that a newcomer needs; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help up test check bench chaos proto clean

VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
SDK := tests/sdk

help: ## List what there is to make.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile
	@echo 'ARGS="..." is passed on: make up ARGS="--listen 127.0.0.1:9000", make test ARGS="-k nozzle"'

# exec: the process that make started is raywire itself, so Ctrl-C reaches it once, and SIGTERM to
# make ends it too.
up: $(VENV)/.installed-demo ## Install what is missing, and start everything.
	@exec $(BIN)/raywire up $(ARGS)

test: $(VENV)/.installed-dev $(SDK)/node_modules/.installed ## Lint, check types, and run all tests.
	@VENV=$(VENV) .ci/lint
	@exec $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-dev ## The quick gate: lint, types, and the tests without servers.
	@VENV=$(VENV) exec .ci/check $(ARGS)

bench: $(VENV)/.installed-demo ## Measure latency and loss under load.
	@exec $(BIN)/raywire bench --own $(ARGS)

# Another seed each time; the output names it, and SEED=... repeats its strikes.
SEED ?= $(shell date +%s)
MINUTES ?= 5
chaos: $(VENV)/.installed-dev ## Kill its parts under load, and check that nothing is lost.
	@exec $(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(ARGS)

# A module runs with libraries that are not older than its maker, up to the next major version. So
# the maker is an old one, apart from what is installed for the tests.
proto: | $(BIN)/python ## Make protocol_pb2.py anew, after a change of protocol.proto.
	@$(BIN)/python -m venv --clear build/proto
	@build/proto/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.80.1
	@build/proto/bin/python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. serve/protocol/protocol.proto

clean: ## Remove what was installed and built. Data (.raywire) stays.
	rm -rf $(VENV) $(SDK)/node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find actors serve tests -name __pycache__ -prune -exec rm -rf {} +

# The first Python that is new enough. A name that exists may still not run (pyenv's shims).
$(BIN)/python:
	@for python in python3.11 python3.12 python3.13 python3; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Making $(VENV) with $$python"; \
	        $$python -m venv $(VENV) && exit 0; \
	        rm -rf $(VENV); \
	        echo "error: $$python cannot make a virtual environment: on Debian or Ubuntu," \
	            "install python3-venv" >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "error: Python 3.11 or newer is needed; found: $$(python3 --version 2>&1 || true)" >&2; \
	exit 1

# The stamps say that what pyproject.toml asks for is installed, so a second start is at once.
$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	@$(call install,.[demo])
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@$(call install,.[demo$(comma)test$(comma)dev])
	@touch $@ $(VENV)/.installed-demo

# The JavaScript SDK, for its tests. Without npm they are skipped, and nothing is installed.
$(SDK)/node_modules/.installed: $(SDK)/package.json $(SDK)/package-lock.json
	@if command -v npm >/dev/null; then \
	    echo "Installing into $(SDK)/node_modules"; \
	    npm ci --prefix $(SDK) --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null; \
	    touch $@; \
	fi

comma := ,
# Of pip's output only the large downloads are shown; errors come on stderr.
define install
	echo "Installing into $(VENV) (some minutes the first time)"; \
	$(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
	    --editable '$(1)' | while IFS= read -r line; do \
	        case $$line in \
	            *Downloading\ *MB\)) echo "  $${line##*Downloading }" ;; \
	            Installing\ collected*) echo "  unpacking" ;; \
	        esac; \
	    done
endef
