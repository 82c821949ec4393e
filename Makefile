# Everything runs in .venv, which `make install` builds. Times are for two cores.
#   make sft ARGS="-P training.max_steps=300"      one key of the configuration changed
#   make install TORCH_INDEX=https://download.pytorch.org/whl/cpu      the small, CPU-only torch

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
SEED ?=
PORT ?= 5000
WORKERS ?= 2
STORE ?= $(or $(MLFLOW_TRACKING_URI),sqlite:///mlflow.db)
TORCH_INDEX ?=
SHARD ?= answers
SEEDS ?= 1
# A wrong SHARD ends `make demo` before the install.
ifneq ($(filter demo,$(MAKECMDGOALS)),)
ifneq ($(words $(SHARD)) $(filter-out answers images noise clean,$(SHARD)),1 )
$(error SHARD must be answers, images, noise or clean, got '$(SHARD)')
endif
endif
# What is broken in each shard of `make demo`, against configs/data_prep_broken_shard.yaml.
BROKEN_answers :=
BROKEN_images := --corrupt.kind images
BROKEN_noise := --corrupt.share 0.6
BROKEN_clean := --corrupt.share 0
DEMO_PREP = pixelis data-prep --config configs/data_prep_broken_shard.yaml
DEMO = outputs/demo/$(SHARD)

STAMP := $(VENV)/.installed
# MLflow takes `python` from PATH, so the environment has to be active, not only its mlflow called.
ACTIVE := PATH="$(abspath $(VENV))/bin:$$PATH"
AT_STORE = $(ACTIVE) MLFLOW_TRACKING_URI="$(STORE)"
# A file's tests stay in one process, since they share what is slow to make.
BY_FILE := --dist loadfile --no-loadscope-reorder
PYTEST = $(ACTIVE) OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} python -m pytest -n $(WORKERS) $(BY_FILE)

export MLFLOW_DISABLE_TELEMETRY ?= true

.DEFAULT_GOAL := help
.PHONY: help install sft demo test test-unit faults check docs ui base

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## build .venv with everything pinned: 75 s to 3 min, about 6 GB (CPU-only: 2 GB)
	@echo "install: $(VENV) is ready"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "install: Python 3.11 or newer is needed; name one with make install PYTHON=python3.11")'
	@echo "install: putting pixelis and its pinned dependencies into $(VENV); 75 s to 3 min, more on a slow line"
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]' $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@

sft: install ## train, evaluate and record the default run: 5 to 7 min (ARGS="-P key=value")
	@echo "sft: data, training, evaluation; 5 to 7 min. Look at it with: make ui"
	$(ACTIVE) mlflow run . -e sft --env-manager local $(if $(MLFLOW_EXPERIMENT_ID),,--experiment-name sft_curriculum) $(ARGS)

demo: install ## a rollback saves a run: a broken shard, three arms, one seed: about 6 min (SEEDS=5; SHARD=images, noise, clean)
	@echo "demo: data with a broken shard ($(SHARD)), then $(SEEDS) training(s) of each of three arms; about 6 min for one"
	@test -d data/demo/trusted || $(AT_STORE) $(DEMO_PREP) --corrupt.share 0 --seed 7 --num_samples 300 --output_dir data/demo/trusted
	@test -d data/demo/$(SHARD) || $(AT_STORE) $(DEMO_PREP) $(BROKEN_$(SHARD)) --output_dir data/demo/$(SHARD)
	$(AT_STORE) pixelis ablate --config configs/demo_broken_shard.yaml --seeds $(SEEDS) --data.path data/demo/$(SHARD) --training.output_dir $(DEMO) $(ARGS)
	@echo "demo: the table is $(DEMO)/table.md, the timeline of a training $(DEMO)/<arm>/seed-<n>/sft/timeline.png. Look at the runs with: make ui"

test: install ## run the tests: about 25 min in WORKERS=2 processes (ARGS="-k config"); FULL=1: the slow ones too
	@echo "test: about 25 min in $(WORKERS) processes (FULL=1: 35 min)"
	$(PYTEST) $(if $(FULL),-m "not faults") $(ARGS)

test-unit: install ## the tests that train nothing and start no process: under 2 min
	@echo "test-unit: under 2 min in $(WORKERS) processes"
	$(PYTEST) -m "not integration and not slow and not faults" $(ARGS)

faults: install ## break the program on purpose: 14 kills and more, about 5 min; FULL=1: all of it, 20 min; SEED=1: other moments
	@echo "faults: kills, full disks, several at once; about 5 min (FULL=1: 20 min)"
	$(ACTIVE) $(if $(FULL),PIXELIS_FAULTS=full) PIXELIS_FAULTS_SEED=$(SEED) python -m pytest tests/faults -n $(WORKERS) $(BY_FILE) -m $(if $(FULL),"faults or not faults",faults) $(ARGS)

check: install ## ruff, mypy and the documentation: 1 to 2 min the first time, then seconds
	@echo "check: 1 to 2 min the first time, then seconds"
	$(ACTIVE) ruff check .
	$(ACTIVE) ruff format --check .
	$(ACTIVE) mypy
	$(ACTIVE) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

docs: install ## build the documentation's site in build/site: 5 s
	$(ACTIVE) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "docs: open build/site/index.html"

ui: install ## the MLflow UI on the local store, PORT=5000: starts in 10 s, runs until Ctrl-C
	@echo "ui: http://127.0.0.1:$(PORT)/#/experiments?workflowType=machine_learning in about 10 s; Ctrl-C ends it"
	$(ACTIVE) mlflow ui --backend-store-uri $(STORE) --port $(PORT)

base: install ## rebuild the embedded base model: about an hour; a stopped build goes on
	@echo "base: about an hour; a stopped build goes on (build/nano)"
	$(ACTIVE) python -m recipes.nano $(ARGS)
