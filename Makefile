# make run: set up, then the main job on the embedded default. make test: set up, then the test suite.
PYTHON ?= python3
BIN := .venv/bin
AUTO_GPTQ := .venv-auto-gptq/bin

.PHONY: run test test-auto-gptq check bench-scoring bench-metrics bench-quantize bench-sweep bench-formats bench-qllm families tasks models systems prefetch setup setup-auto-gptq clean
.DELETE_ON_ERROR:

run: setup
	$(BIN)/python main.py $(ARGS)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# what touches the libraries, in the environment of auto-gptq; skipped is what needs gptqmodel or transformers 5
test-auto-gptq: setup-auto-gptq
	$(AUTO_GPTQ)/python -m pytest tests/quantize tests/scoring tests/test_consumed.py tests/test_models.py tests/test_provenance.py $(ARGS)

# make prefetch model=opt-125m,opt-1.3b task=paper paths.hub_mirror=DIR: what runs with these settings read from the hub
prefetch: setup
	$(BIN)/python -m bitsure.run.prefetch $(filter-out PYTHON=%,$(MAKEOVERRIDES))

bench-scoring: setup
	$(BIN)/python -m benchmarks.scoring $(ARGS)

bench-metrics: setup
	$(BIN)/python -m benchmarks.metrics $(ARGS)

bench-quantize: setup
	$(BIN)/python -m benchmarks.quantize $(ARGS)

bench-sweep: setup
	$(BIN)/python -m benchmarks.sweep $(ARGS)

bench-formats: setup
	$(BIN)/python -m benchmarks.formats $(ARGS)

bench-qllm: setup
	$(BIN)/python -m benchmarks.qllm $(ARGS)

families: setup
	$(BIN)/python -m benchmarks.families $(ARGS)

tasks: setup
	$(BIN)/python -m benchmarks.tasks $(ARGS)

models: setup
	$(BIN)/python -m benchmarks.models

# make systems ARGS=multirun/best_practice: the tables of docs/systems.md, from a finished sweep and benchmarks/qllm.md
systems: setup
	$(BIN)/python -m benchmarks.systems $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

setup: .venv/ready

# made again when what it was made from changes; the stamp comes last, so that a broken set-up is not taken for a good one
.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make PYTHON=…")'
	@$(PYTHON) -m venv .venv
	@echo "installing requirements.txt into .venv: this takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

setup-auto-gptq: .venv-auto-gptq/ready

.venv-auto-gptq/ready: requirements-auto-gptq.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v[:2] == (3, 11) or sys.exit(f"auto-gptq is built for Python 3.11 at most, bitsure needs that at least; this is {v[0]}.{v[1]}: make setup-auto-gptq PYTHON=…")'
	@$(PYTHON) -m venv .venv-auto-gptq
	@echo "installing requirements-auto-gptq.txt into .venv-auto-gptq: this takes some minutes"
	@$(AUTO_GPTQ)/python -m pip install --quiet --disable-pip-version-check -r requirements-auto-gptq.txt
	@touch $@

clean:
	rm -rf .venv .venv-auto-gptq .bitsure outputs multirun
