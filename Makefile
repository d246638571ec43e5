# Everything a developer needs; `make demo` and `make test` work from a bare clone.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
SOURCES := gateway tests

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench soak clean tools test-container

help:            ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)/installed  ## gateway, ThingsBoard stand-in and cars in one process
	@$(RUN)ocpp-gateway demo

test: $(VENV)/tools tools  ## all tests, with a real broker
	@$(RUN)pytest -q -n 4 -m waits
	@$(RUN)pytest -q -m 'not waits and not container and not soak'

test-container: $(VENV)/tools  ## build the image and charge through it: Debian, as root
	@sh deploy/need.sh buildah
	@sh deploy/need.sh debootstrap
	@$(RUN)pytest -q -m container -o faulthandler_timeout=0

check: $(VENV)/tools  ## format, lint, types
	@$(RUN)ruff format --check $(SOURCES)
	@$(RUN)ruff check $(SOURCES)
	@$(RUN)flake8-async --disable=ASYNC109,ASYNC114,ASYNC9 $$(find gateway -name '*.py')
	@$(RUN)mypy

format: $(VENV)/tools  ## put the code in order
	@$(RUN)ruff check --fix-only -q $(SOURCES)
	@$(RUN)ruff format $(SOURCES)

bench: $(VENV)/tools tools  ## figures, one JSON object a line
	@$(RUN)python -m tests.bench

soak: $(VENV)/tools tools  ## the long forms, for SOAK_MINUTES=10 or as many as you give
	@$(RUN)pytest -q -s -m soak -o timeout=0 -o faulthandler_timeout=0 tests/soak

clean:           ## forget the virtual environment and what tools left
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

# --- how it is set up ---------------------------------------------------------------------------

$(VENV)/bin/python:
	@$(PYTHON) deploy/check_python.py
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	@echo "installing ocpp-gateway into $(VENV) ..."
	@$(RUN)pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/tools: $(VENV)/bin/python pyproject.toml
	@echo "installing ocpp-gateway and its tools into $(VENV) ..."
	@$(RUN)pip install -q --disable-pip-version-check -e '.[test,check]'
	@touch $@ $(VENV)/installed

tools:
	@sh deploy/need.sh mosquitto
