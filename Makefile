# `make help` lists the targets. Nothing is installed outside this folder, but for Chromium where the guide's browser
# test needs it and the machine has none.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
# Where this is set, each of hundreds of processes compiles all that it imports: a start takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

PORT ?= 8080
ENGINE ?= vllm
CONFIG ?=
ONLY ?=
REPEATS ?=
WRITE ?=
BENCH ?=
SUITE ?=
CLIENTS ?=
PYTHON ?= $(shell command -v python3.11 || echo python3)
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
PYTEST := $(BIN)/pytest
# With COVERAGE=1 the unit and the data-plane tests tell which lines they run, in processes that they start as well.
COVERAGE ?=
COVERED := $(if $(COVERAGE),$(BIN)/coverage run -m pytest,$(PYTEST))
# Suites that wait more than they compute run in more processes than there are cores, a file at a time, in the order given:
# a file that takes long comes first, so that no other has to wait for it in the end.
BY_FILE := --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup engine gpu-lock run stop keys test test-unit test-data-plane coverage coverage-report test-chaos guide-tools test-guide test-e2e test-vllm-suite test-clients test-crd test-controller test-edits test-soak test-charts test-gateway-models test-kube test-chart-pods chart-docs settings-docs k8s-base bench check check-types check-rules format clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables of make run: PORT=$(PORT)  ENGINE=$(ENGINE) (vllm, sim, ray-sim)  CONFIG=FILE (models of your own)"
	@echo "  Variables of make bench: ONLY=haproxy,cloudach  BEFORE=DIR (another checkout)  REPEATS=5  WRITE=1 (into docs/benchmarks.md)  BENCH=--quick (any flag)"

.tools/bin/uv:
	@echo "== installing uv $(UV_VERSION) into .tools"
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or name it with PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# The stamp holds the lock file's sum: nothing is asked of the network while the lock stands.
setup: ## install the workspace into .venv (pinned by uv.lock)
	@sum=$$(cat uv.lock pyproject.toml libs/*/pyproject.toml services/*/pyproject.toml | sha256sum); \
	if [ "$$(cat .venv/.installed 2>/dev/null)" != "$$sum" ]; then \
	  $(MAKE) -s $(UV); \
	  echo "== installing the workspace into .venv"; \
	  UV_PYTHON=$(PYTHON) $(UV) sync --frozen --quiet || { echo "The install failed: is a package index reachable?"; exit 1; }; \
	  echo "$$sum" > .venv/.installed; \
	fi

engine: setup ## install vLLM into .venv-vllm (CPU or GPU build, as the machine has)
	@UV="$(UV)" UV_PYTHON=$(PYTHON) scripts/engine-env.sh

gpu-lock: $(UV) ## lock the engine's GPU build anew, with hashes, after a change of uv.lock or gpu-requirements.in
	@UV="$(UV)" scripts/gpu-lock.sh

run: setup ## serve on 127.0.0.1:8080 until Ctrl-C: gateway, Valkey and the engine
	@if [ "$(ENGINE)" = vllm ]; then $(MAKE) engine; fi
	@exec $(BIN)/cloudach-stack up --engine $(ENGINE) --port $(PORT) $(if $(CONFIG),--config $(CONFIG))

stop: ## end what `make run` of this folder started
	@$(BIN)/cloudach-stack down

test: export STREAMS ?= 200
test: export LEFT_OUT := .cache/left-out
test: ## all tests, the real vLLM run last; what was left out is said at the end
	@mkdir -p $(dir $(LEFT_OUT)) && : >$(LEFT_OUT)
	@rm -rf .cache/coverage
	@$(MAKE) -j4 -O check guide-tools engine # downloads go on beside what computes
	@$(MAKE) test-unit COVERAGE=1
	@$(MAKE) test-data-plane COVERAGE=1
	@$(MAKE) coverage-report test-chaos
	@$(MAKE) test-kube
	@$(MAKE) -j2 -O test-chart-pods test-guide # pods are waited for while the guide's programs compute
	@$(MAKE) test-e2e # alone: the engine takes all cores
	@scripts/left-out.sh $(LEFT_OUT)

test-unit: setup ## the tests beside the libraries and services, and those of docs/
	$(COVERED) -q -n 6 --dist worksteal libs services tests/docs

test-data-plane: setup ## gateway, Valkey, simulator and the official SDKs as real processes
	@scripts/proxy-tools.sh
	$(COVERED) -q -n 4 $(BY_FILE) tests/data_plane/test_garbage.py tests/bench/test_smoke.py \
	  tests/data_plane tests/bench tests/vllm_suite/test_verdict.py

coverage: ## which lines the unit and the data-plane tests run; fails below the gate in pyproject.toml
	@rm -rf .cache/coverage
	@$(MAKE) test-unit test-data-plane COVERAGE=1
	@$(MAKE) coverage-report

coverage-report: setup
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --sort=miss | tail -n 20 # those with the most lines that no test runs come last

test-chaos: setup ## replicas and gateways killed and replaced under load: no stream breaks; STREAMS=500
	$(PYTEST) -q tests/chaos

guide-tools: setup
	@tests/guide/setup.sh

test-guide: guide-tools ## every example of docs/guide, with the real SDKs, curl and a browser
	$(PYTEST) -q tests/guide

test-e2e: setup engine ## real vLLM under Ray Serve behind the gateway
	$(PYTEST) -q tests/e2e

test-vllm-suite: setup engine ## vLLM's own tests of its server, alone and through the gateway; not part of `make test`; SUITE="FILE -k NAME"
	@$(BIN)/python -m tests.vllm_suite $(SUITE)

test-clients: guide-tools ## other people's clients, installed and tried; not part of `make test`; CLIENTS="openai --engine vllm"
	@$(BIN)/python -m tests.clients $(CLIENTS)

test-crd: setup ## the Model resource on a real API server: rules, kubectl scale, server-side apply; KUBEBUILDER_ASSETS=DIR
	@scripts/kube-tools.sh
	$(PYTEST) -q tests/crd

test-controller: setup ## the controller on a real API server (KUBEBUILDER_ASSETS), and the loop with a real Ray
	@scripts/kube-tools.sh
	$(PYTEST) -q tests/controller

test-edits: export EDITS_SECONDS ?= 180
test-edits: setup ## 200 random edits and 50 kills over ten Models, not part of `make test`; EDITS_SECONDS=180 EDITS_SEED=7
	@scripts/kube-tools.sh
	$(PYTEST) -q -s tests/controller/test_random_edits.py

test-soak: setup ## 1,000 streams through one gateway process, not part of `make test`; MINUTES=5
	$(PYTEST) -q tests/soak

test-charts: setup ## the Helm chart: values, schemas, Pod Security, and helm on a real API server (KUBEBUILDER_ASSETS)
	@scripts/kube-tools.sh
	$(PYTEST) -q tests/charts

test-gateway-models: setup ## the gateway and Models on a real API server: served, woken, an outage (KUBEBUILDER_ASSETS)
	@scripts/kube-tools.sh
	$(PYTEST) -q tests/gateway_models

test-kube: setup ## those four at once, part of `make test`; KUBEBUILDER_ASSETS=DIR, without which most is left out
	@scripts/kube-tools.sh
	$(PYTEST) -q -n 3 $(BY_FILE) tests/controller/test_loop.py tests/controller tests/gateway_models tests/crd tests/charts

test-chart-pods: setup ## the chart as pods: ready, upgraded under load, tested, uninstalled; needs a node (tests/chart_pods/node.py)
	@scripts/kube-tools.sh
	$(PYTEST) -q tests/chart_pods

chart-docs: setup ## write the chart's schema and README from its values.yaml
	@$(BIN)/python scripts/chart_docs.py write

settings-docs: setup ## write docs/reference/settings.md from the settings classes of the services
	@$(BIN)/python scripts/settings_docs.py write

k8s-base: ## render the chart into k8s/base, for kustomize
	@scripts/kube-tools.sh
	@.tools/bin/helm template cloudach charts/cloudach --namespace cloudach --kube-version 1.37.0 \
	  --values k8s/base/values.yaml > k8s/base/cloudach.yaml

bench: setup ## CPU, throughput and latency beside other proxies: 25 minutes on an idle machine
	@mkdir -p .cache
	@UV="$(UV)" UV_PYTHON=$(PYTHON) scripts/bench-env.sh $(ONLY) || true
	@$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(REPEATS),--repeats $(REPEATS)) \
	  --json .cache/bench.json $(if $(WRITE),--write) $(BENCH)

check: check-types check-rules ## lint, formatting, types, import contracts, links of the docs, rules of the tests and docstrings

check-types: setup
	$(BIN)/mypy libs/*/src services/*/src tests/support

check-rules: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	@$(BIN)/python scripts/settings_docs.py check
	$(BIN)/python scripts/check_links.py
	@$(BIN)/python scripts/check_tests.py
	@$(BIN)/python scripts/check_docstrings.py

format: setup ## format and mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove what was installed and built here (not the weights' cache)
	rm -rf .venv .venv-vllm .venv-bench-* .tools .run node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
