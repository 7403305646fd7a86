# make demo   shipped weights on pairs, then training and tests on generated scenes; writes demo/report.html
#             (make demo RGB=FOLDER THERMAL=FOLDER begins with your own pairs)
# make test   lint, types and the default tests
# Both set up everything they need in .venv. Needs Python 3.11 or later and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test lint types guard unit docs slow clean

demo: $(VENV)/.installed
	$(BIN)/efnet demo --out demo $(if $(RGB),--rgb "$(RGB)") $(if $(THERMAL),--thermal "$(THERMAL)")

test: lint types guard unit docs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# An install that brought torchvision in would break wherever its build does not match torch's.
guard: $(VENV)/.dev
	$(BIN)/python -c "import importlib.util, sys; sys.exit('torchvision came in with a dependency' if importlib.util.find_spec('torchvision') else 0)"

# With compiled modules kept, whatever the environment says: tests start dozens of processes.
unit: $(VENV)/.dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal -q

# The pages as a site in build/docs; a warning is an error.
docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

# Minutes each: memory at full size, the whole demo.
slow: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m slow

$(VENV)/.python:
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed, this is ' + sys.version.split()[0] if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing efnet into $(VENV), which takes a few minutes the first time"
	$(PIP) -e '.[tensorboard]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) -e '.[dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist
