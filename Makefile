# Two commands on a fresh machine: `make demo` and `make test`. Both do all the set-up first.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PHOTOS ?=
ENCODER ?= auto
TESTS ?= tests
JOBS ?= 2
SIZE ?= 100000
PEER_LIMIT_S ?= 60
QUICK ?=
RUNS ?= 20
LOAD ?=
LOCATED ?=
SECONDS ?=
SEED ?= 1
MEGAPIXELS ?=
VULNERABILITY_SERVICE ?= pypi

# What a target needs: to run it all on this machine, or that with tests, checks, examples and object stores. A target
# adds to .venv what lacks, and installs again only when what it needs would change.
RUN := requirements.txt requirements/torch.txt requirements/embedded.txt
ALL := $(RUN) requirements/cloud.txt requirements/tracing.txt requirements/dev.txt
stamp = $(VENV)/.made-$(1)-$(shell cat $($(1)) pyproject.toml worker/pyproject.toml | sha256sum | cut -c1-16)
RUN_STAMP := $(call stamp,RUN)
ALL_STAMP := $(call stamp,ALL)

# What benchmarks compare with lives apart, each in .venv-bench-NAME by benchmarks/requirements-NAME.txt: none of it is
# part of the service, and they do not go together.
PEERS := .venv-bench
# The release that rebuilds are compared with: the last before filters had columns, and vectors lay in their rows.
EARLIER := .bench-before/44b7b8e
# What looks at the image's packages lives apart, too.
SUPPLY := .venv-supply
# Debian's Prometheus, unpacked and not installed: its package would start a service.
PROMETHEUS := .prometheus
# And what runs the compose file in containers, beside the client.
CONTAINERS := .venv-containers
LOCKS := requirements/lock.txt requirements/lock-models.txt requirements/lock-torch.txt
FEATURE_PEERS := opencv-contrib learned-features
ENCODER_PEERS := decoders sentence-transformers infinity-emb rclip imgbeddings

.PHONY: help setup demo demo-soak chaos test browser prometheus observe-test test-client-matrix container-test lint check format docs words findings bench-index bench-search bench-dropin bench-embed bench-features bench-place bench-exam bench-descriptors bench-sandbox flower bench-scale bench-start fuzz lock sbom audit clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(ALL_STAMP)  ## Make .venv with everything in it (minutes the first time, nothing after)

$(RUN_STAMP): NEEDED = $(RUN)
$(ALL_STAMP): NEEDED = $(ALL)
$(RUN_STAMP) $(ALL_STAMP):
	@# On standard error: the standard output of a benchmark is JSON, also the first time.
	@echo "setting up $(VENV): about 6 GB with torch, a few minutes the first time" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check $(addprefix -r ,$(NEEDED)) -e . -e worker >&2
	@# Who has everything has what a run needs. The stamps of other pins are true no longer.
	@rm -f $(filter-out $(RUN_STAMP) $(ALL_STAMP),$(wildcard $(VENV)/.made-*)) && touch $@ $(RUN_STAMP)

demo: $(RUN_STAMP)  ## Locate photos through real processes; PHOTOS=folder for your own, ENCODER=name for another model
	@$(BIN)/python -m demo --encoder "$(ENCODER)" $(if $(PHOTOS),--photos "$(PHOTOS)")

demo-soak: $(RUN_STAMP)  ## The demo RUNS=20 times, whose answers must be equal; LOAD=1 keeps the cores busy, LOCATED=10 says how many; JSON last
	@$(BIN)/python -m demo.soak --encoder "$(ENCODER)" --runs $(RUNS) $(if $(PHOTOS),--photos "$(PHOTOS)") \
		$(if $(LOAD),--load) $(if $(LOCATED),--located $(LOCATED))

chaos: $(ALL_STAMP)  ## Kill, stop and cut off a service under load for SECONDS=120, by SEED=1, and see that nothing is lost; JSON last
	@$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),120) --seed $(SEED)

# Files in their order: those of unit tests, which are short, come last, so that all processes end together.
test: $(ALL_STAMP)  ## Run the test suite against real Postgres and Valkey processes; TESTS=path for a part, JOBS=1 for one process
	@$(BIN)/python -m pytest $(if $(filter tests,$(TESTS)),-n $(JOBS) --dist loadfile --no-loadscope-reorder) $(TESTS)

browser:  ## Install Debian's Chromium, as root, for the tests that open the exam's page; they are skipped without one
	@command -v chromium >/dev/null || { apt-get update && apt-get install -y --no-install-recommends chromium; }

prometheus: $(PROMETHEUS)/usr/bin/promtool  ## Fetch Debian's Prometheus for the tests of alerts, without root and installing nothing; they are skipped without one

# apt's own lists may be old or absent, and only root may renew them: these are kept beside it for as long as it takes.
$(PROMETHEUS)/usr/bin/promtool:
	@rm -rf $(PROMETHEUS) && mkdir -p $(PROMETHEUS)/apt/lists $(PROMETHEUS)/apt/cache
	@cd $(PROMETHEUS)/apt && own="-q -o Dir::State::Lists=$$PWD/lists -o Dir::Cache=$$PWD/cache" \
		&& apt-get $$own update >&2 && apt-get $$own download prometheus >&2
	@dpkg-deb -x $(PROMETHEUS)/apt/prometheus_*.deb $(PROMETHEUS) && rm -rf $(PROMETHEUS)/apt
	@touch $@

observe-test: $(ALL_STAMP) prometheus  ## Have a real Prometheus watch a stack with our rules and dashboards, and a queue get stuck; JSON last
	@$(BIN)/python -m tests.observe

test-client-matrix: $(ALL_STAMP)  ## Test the client with older and newer releases of celery and redis, each in a .venv-client-NAME
	@CLIENT_MATRIX=1 $(BIN)/python -m pytest tests/integration/test_client_versions.py

container-test:  ## Build the images and run docker-compose.yml by podman, as root on Debian: upgrade, without torch, kills, restore; JSON last
	@$(PYTHON) tests/containers/machine.py
	@$(MAKE) --no-print-directory $(CONTAINERS)/.made
	@$(CONTAINERS)/bin/python -m tests.containers

lint: $(ALL_STAMP)  ## Format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint test  ## All of it: what .ci/run calls

format: $(ALL_STAMP)  ## Put the code into the project's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: $(RUN_STAMP)  ## Write the configuration table of the README from Settings
	@$(BIN)/python -m worker.settings_table README.md
	@$(BIN)/python -m worker.observe.table docs/metrics.md

words: $(ALL_STAMP)  ## Bring the texts of the code into the catalogues of other languages, and compile these
	@$(BIN)/python -m translation

bench-index: $(RUN_STAMP) $(PEERS)-index/.made  ## Measure the index beside its peers: SIZE="10000 100000", PEER_LIMIT_S=60; JSON on stdout
	@$(BIN)/python -m benchmarks.index $(addprefix --size ,$(SIZE)) --peer-limit-s $(PEER_LIMIT_S)

bench-search: $(RUN_STAMP)  ## Measure filtered searches and rebuilds beside what they were: SIZE=1000000; JSON on stdout
	@mkdir -p $(EARLIER)
	@if git archive $(notdir $(EARLIER)) 2>/dev/null | tar -x -C $(EARLIER) 2>/dev/null; then earlier="--before $(EARLIER)"; \
		else echo "this checkout has no history: rebuilds are not compared" >&2; fi; \
		$(BIN)/python -m benchmarks.search $$earlier $(if $(filter command environment,$(firstword $(origin SIZE))),--size $(SIZE))

bench-dropin: $(ALL_STAMP)  ## Measure a located request, the old class's way and ours: PHOTOS=folder, QUICK=1; JSON on stdout
	@$(BIN)/python -m benchmarks.dropin $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(QUICK),--quick)

bench-embed: $(RUN_STAMP) $(ENCODER_PEERS:%=$(PEERS)-%/.made)  ## Measure photos a second, to the queue and beside peers: QUICK=1, PHOTOS=folder, MEGAPIXELS=8; JSON on stdout
	@$(BIN)/python -m benchmarks.encoder $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(QUICK),--quick) \
		$(if $(MEGAPIXELS),--megapixels $(MEGAPIXELS))

bench-place: $(RUN_STAMP)  ## Measure how far answers can be trusted, by policy: PHOTOS=folder, QUICK=1, SET=floors|corridor|apart|series|small; JSON on stdout
	@$(BIN)/python -m benchmarks.place $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(QUICK),--quick) $(if $(SET),--set "$(SET)")

bench-exam: $(RUN_STAMP)  ## Measure how long it takes to ask about 1,000 of 100,000 photos: ASKED=1000; JSON on stdout
	@$(BIN)/python -m benchmarks.exam $(if $(ASKED),--photos $(ASKED))

bench-sandbox: $(RUN_STAMP)  ## Measure what decoders of their own cost through the queue, with and without in turns; JSON on stdout
	@$(BIN)/python -m benchmarks.sandbox

bench-scale: $(RUN_STAMP)  ## Measure a second worker process, what a message costs, and memory of each: QUICK=1; JSON on stdout
	@$(BIN)/python -m benchmarks.scale $(if $(QUICK),--quick)

bench-start: $(RUN_STAMP) $(PEERS)-serve/.made  ## Measure how long a worker takes to be ready, without torch and with it: RUNS=10; JSON on stdout
	@$(BIN)/python -m benchmarks.start --serve $(PEERS)-serve/bin/python $(if $(filter command environment,$(firstword $(origin RUNS))),--runs $(RUNS))

bench-features: $(RUN_STAMP) $(FEATURE_PEERS:%=$(PEERS)-%/.made)  ## Measure keypoints and their matchers: PHOTOS=folder, QUICK=1; JSON on stdout
	@$(BIN)/python -m benchmarks.features $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(QUICK),--quick)

bench-descriptors: $(RUN_STAMP) $(PEERS)-patches/.made  ## Measure other vectors of the same photos on the exam: PHOTOS=folder, QUICK=1; JSON on stdout
	@$(BIN)/python -m benchmarks.descriptors $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(QUICK),--quick)

flower: $(RUN_STAMP) $(PEERS)-flower/.made  ## Look at the queues of a running stack with Flower, as deploy/README.md says; JSON on stdout
	@$(BIN)/python -m tests.flower --venv $(PEERS)-flower

fuzz: $(ALL_STAMP) $(PEERS)-atheris/.made  ## Give the contract and the decoder odd bytes: SECONDS=300, SEED=1; JSON on stdout
	@$(BIN)/python -m tests.fuzz --peer $(PEERS)-atheris --seconds $(or $(SECONDS),300) --seed $(SEED)

findings:  ## What surprised us of other people's software, tried again: a line of each of findings/*.sh (some minutes)
	@failed=0; for script in findings/*.sh; do \
		said=$$(bash "$$script" 2>&1) || failed=1; \
		printf '%-42s %s\n' "$$(basename "$$script" .sh)" "$$(tail -n 1 <<< "$$said")"; \
	done; exit $$failed

$(PEERS)-serve/.made: requirements/lock.txt
	@echo "setting up $(@D), once: what the image without torch has" >&2
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $< >&2
	@touch $@

$(PEERS)-%/.made: benchmarks/requirements-%.txt
	@echo "setting up $(@D), once" >&2
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $< >&2 \
		|| sed 's/#.*//; s/ *$$//; /^$$/d' $< | while read -r requirement; do \
			$(@D)/bin/python -m pip install --quiet --disable-pip-version-check "$$requirement" >&2 \
			|| echo "$$requirement cannot be installed here: it will be left out" >&2; \
		done
	@touch $@

lock: $(SUPPLY)/.made  ## Write requirements/lock*.txt: the image's packages with their SHA-256, as pip resolves them now (fetches 3 GB)
	@report=$$(mktemp) && trap 'rm -f '"$$report" EXIT && $(SUPPLY)/bin/python -m pip install --quiet --dry-run --ignore-installed \
		--only-binary :all: --report "$$report" -r requirements.txt -r requirements/cloud.txt -r requirements/tracing.txt -r requirements/torch.txt >&2 \
		&& $(SUPPLY)/bin/python -m supply < "$$report"

sbom: $(SUPPLY)/.made  ## A bill of materials of the image's packages (CycloneDX JSON) on stdout
	@cat $(LOCKS) | $(SUPPLY)/bin/cyclonedx-py requirements --output-reproducible --short-PURLs --pyproject worker/pyproject.toml -

# Strict: where the service knows nothing of a package, pip-audit skips it and finds no vulnerabilities in the rest.
audit: $(SUPPLY)/.made  ## Look for known vulnerabilities of the image's packages; asks a service (VULNERABILITY_SERVICE=pypi|osv|esms)
	@$(SUPPLY)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
		--vulnerability-service $(VULNERABILITY_SERVICE) $(addprefix -r ,$(LOCKS))

$(SUPPLY)/.made: requirements/supply.txt
	@echo "setting up $(@D), once" >&2
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $< >&2
	@touch $@

$(CONTAINERS)/.made: requirements/containers.txt pyproject.toml
	@echo "setting up $(@D), once" >&2
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $< -e . >&2
	@touch $@

clean:  ## Remove what the commands above have made
	rm -rf $(VENV) $(PEERS) $(PEERS)-* $(SUPPLY) $(CONTAINERS) .containers .venv-client-* .bench-before $(PROMETHEUS) .sightline build *.egg-info worker/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz
