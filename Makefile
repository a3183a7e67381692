# `make demo` and `make test` need Python 3.11 or newer, git and make; everything else is installed into .venv.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test mutants soak bench pictures format lock clean

help:
	@echo "make venv    create .venv and install ionctl with its exact dependencies"
	@echo "make demo    deliver a carbon field into water over Channel Access (under two minutes once installed)"
	@echo "make test    format, lint, types, import contracts, coverage of interlocks/, all tests (under ten minutes)"
	@echo "make mutants mutation testing of interlocks/ (an hour and more; stopped runs go on); survivors are printed"
	@echo "make soak    the long counts; resumable, writes soak/<commit>.json"
	@echo "make bench   measure and print tables; JSON in benchmarks/results/"
	@echo "make pictures  draw all pictures of docs/physics anew (some minutes)"
	@echo "make format  format the code"
	@echo "make lock    write constraints.txt from what is installed in .venv"
	@echo "make clean   remove .venv and everything generated"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/make_venv.sh
	@sh scripts/make_venv.sh $(VENV)
	@touch $@

demo: $(STAMP)
	@$(BIN)/ionctl demo

test: $(STAMP)
	@$(BIN)/python scripts/check.py

mutants: $(STAMP)
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,mutants]"
	@$(BIN)/python scripts/mutants.py

soak: $(STAMP)
	@$(BIN)/python -m benchmarks.soak

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

pictures: $(STAMP)
	@$(BIN)/python -m benchmarks.physics_pages

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(STAMP)
	@$(BIN)/python scripts/lock.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
