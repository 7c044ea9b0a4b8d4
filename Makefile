# make plan   set up and answer the first question      make test   install the test extra and run the tests
# make lint   ruff, mypy, import floors                  make bench  speed, by pytest-benchmark
# make reports  write reports/ anew
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: plan test lint bench reports wheel clean
.DEFAULT_GOAL := plan

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 && $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.installed

plan: $(VENV)/.installed
	@$(BIN)/hwsim plan --model 70b --gpus 64

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/python -m pytest tests/bench --benchmark-only --benchmark-columns=min,median,max,rounds

reports: $(VENV)/.installed
	$(BIN)/hwsim report buy-h200-or-a100 -o reports/buy-h200-or-a100.html --assets build/reports
	cp build/reports/money-scenarios.png reports/buy-h200-or-a100-money.png
	$(BIN)/hwsim report serve-h200-or-a100 -o reports/serve-h200-or-a100.html
	$(BIN)/hwsim report --model 70b --gpus 64 --tokens 1T -o reports/plan-70b-64-h100.html
	$(BIN)/hwsim sensitivity --model 70b --gpus 64 --plot reports/sensitivity-70b.png >/dev/null
	$(BIN)/hwsim plan --task infer --model 70b --plot reports/plan-infer-70b.png >/dev/null

wheel: $(VENV)/.test
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
