# Python 3.11 and make are all that is needed: every target sets itself up in .venv.
PYTHON ?= python3
BIN := .venv/bin
# An NWB file on which the demo does the same; none is needed.
RECORDING ?= $(firstword $(wildcard ../shared/data/nwb_mc_maze_small_test_dandi000140/*.nwb))

.PHONY: demo test check bench

demo: .venv/.demo
	@$(BIN)/neurostore demo $(if $(RECORDING),--recording '$(RECORDING)')

test: .venv/.dev
	@$(BIN)/python -m pytest -n auto --dist loadfile

check: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The rivals measured beside this package are large; without them their benchmarks are skipped.
bench: .venv/.dev
	@$(MAKE) -s .venv/.peers || echo "neurostore[peers] is not to be had here: nothing is measured beside rivals."
	@$(BIN)/python -m pytest tests/benchmarks -q -s

.venv/.made:
	@echo "Creating .venv ..."
	@$(PYTHON) -m venv .venv
	@touch $@

# .venv/.demo says that the extra `demo` is installed, .venv/.dev the same of `dev`.
.venv/.%: pyproject.toml constraints.txt | .venv/.made
	@echo "Installing neurostore[$*] into .venv (a minute or two the first time) ..."
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[$*]'
	@touch $@
