# Two commands: `make run` and `make test`. `make PYTHON=python3.13 run` chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
RUN_TOOLS = $(VENV)/.run
TEST_TOOLS = $(VENV)/.test

.PHONY: run test model lock clean

run: $(RUN_TOOLS)
	@exec $(VENV)/bin/alpha run $(ARGS)

test: $(TEST_TOOLS)
	@exec $(VENV)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

model: $(TEST_TOOLS)
	@exec $(VENV)/bin/python -m models.recipe $(ARGS)

lock:
	uv pip compile --universal --python-version 3.11 --all-extras --no-header --no-emit-index-url --upgrade pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .alpha/*.db* .alpha/*.jsonl .alpha/log/*.log

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alpha needs Python 3.11 or later, this is %d.%d: make PYTHON=python3.12 run" % sys.version_info[:2])'
	@echo "creating the environment in $(VENV)" && $(PYTHON) -m venv $(VENV)

$(RUN_TOOLS): requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing (about a minute the first time)" && $(VENV)/bin/python -m pip install --disable-pip-version-check -q --progress-bar on -c requirements.lock -e '.[watch]' && touch $@

$(TEST_TOOLS): requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing with what tests and training need" && $(VENV)/bin/python -m pip install --disable-pip-version-check -q --progress-bar on -c requirements.lock -e '.[zstd,train,watch,test]' && touch $@ $(RUN_TOOLS)
