# Everything happens inside the checkout: hatch and its caches live in .hatch, the environment in
# .venv, packages in dist, and what `make serve` runs in .run. Every target may be interrupted and
# repeated.

PYTHON ?= python3
CC ?= cc
export CC
HATCH_VERSION := 1.18.2
UV_VERSION := 0.13.9

export HATCH_DATA_DIR := $(CURDIR)/.hatch/data
export HATCH_CACHE_DIR := $(CURDIR)/.hatch/cache
export HATCH_CONFIG := $(CURDIR)/.hatch/config.toml
export HATCH_ENV_TYPE_VIRTUAL_UV_PATH := $(CURDIR)/.hatch/venv/bin/uv

TOOLS := .hatch/venv/hatch-$(HATCH_VERSION)-uv-$(UV_VERSION)
ENVIRONMENT := .venv/ready
HATCH := .hatch/venv/bin/hatch --no-color
UV := .hatch/venv/bin/uv
DISTRIBUTIONS := . $(patsubst %/pyproject.toml,%,$(wildcard $(patsubst %,%/pyproject.toml, \
  providers/* publishers/* tools/* transports/* examples/device_plugin)))
NATIVE_SOURCES := $(foreach place,tools/fake_nvml transports/h2,$(wildcard $(place)/src/*.[ch] $(place)/hatch_build.py))

# What uv installs, builds included, has the versions and the hashes of a lock.
locked = UV_CONSTRAINT=locks/$(1).txt UV_BUILD_CONSTRAINT=locks/default.txt

say = @printf '==> %s\n' '$(1)'

.DEFAULT_GOAL := help
.PHONY: help env serve test test-server chaos fuzz fuzz-h2 lint fix code-gen build build-server clean prerequisites \
  docs docs-serve lock audit image image-root image-test image-lock e2e

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: env  ## Run the server here, on this machine's GPUs or on a simulated node (ARGS=... adds flags)
	@.venv/bin/python tools/serve $(ARGS)

test: env  ## Run all tests (ARGS=... goes to pytest)
	$(call say,running all tests)
	@$(HATCH) run test $(ARGS)

test-server: env  ## Run the tests of the server only (ARGS=... goes to pytest)
	$(call say,running the tests of the server)
	@$(HATCH) run test tests $(ARGS)

chaos: env  ## Kill, stop and slow everything and judge it (SEED=... SECONDS=60 TRANSPORT=h2)
	$(call say,a storm of $(or $(SECONDS),60) s)
	@.venv/bin/python tests/chaos/soak.py --seconds $(or $(SECONDS),60) $(SEED:%=--seed %) \
	  $(TRANSPORT:%=--transport %) $(ARGS)

fuzz: env  ## Say to every parser and service what nobody should (SECONDS=60 TARGET=rpc)
	$(call say,fuzzing for $(or $(SECONDS),60) s; findings go to .run/fuzz)
	@.venv/bin/python tests/fuzz/fuzz.py --seconds $(or $(SECONDS),60) $(TARGET:%=--target %) $(ARGS)

fuzz-h2: env  ## Say to the h2 transport's engine what nobody should (SECONDS=60; needs clang)
	$(call say,fuzzing for $(or $(SECONDS),60) s; findings go to .run/fuzz-h2)
	@.venv/bin/python transports/h2/fuzz/run.py --seconds $(or $(SECONDS),60) $(ARGS)

lint: env  ## Check style, types, layers and the API without changing anything
	$(call say,checking)
	@$(HATCH) run check

fix: env  ## Correct and format what can be corrected by itself
	$(call say,correcting)
	@$(HATCH) run fix

code-gen: $(TOOLS)  ## Generate code and the API reference from proto/, and the chart's README
	$(call say,generating code)
	@$(call locked,codegen) $(HATCH) run codegen:generate

docs: $(TOOLS)  ## Build the documentation site into dist/site, with every link between pages checked
	$(call say,building the documentation)
	@$(call locked,docs) $(HATCH) run docs:build

docs-serve: $(TOOLS)  ## Serve the documentation here and follow changes (ARGS=... goes to mkdocs)
	@$(call locked,docs) $(HATCH) run docs:serve $(ARGS)

build: prerequisites $(TOOLS)  ## Build every distribution into dist/
	@set -e; for distribution in $(DISTRIBUTIONS); do \
	  printf '==> building %s\n' "$$distribution"; \
	  $(call locked,default) $(UV) build --quiet --out-dir dist "$$distribution"; \
	done; ls dist

build-server: $(TOOLS)  ## Build the core (server, client, command line) into dist/
	$(call say,building the core)
	@$(call locked,default) $(UV) build --quiet --out-dir dist .
	@ls dist

lock: $(TOOLS)  ## Write locks/ anew for what is asked for now (ARGS=--upgrade chooses the newest, --check only looks)
	$(call say,locking)
	@UV="$(UV)" PYTHON=$(PYTHON) locks/lock $(ARGS)

# core has no plugin in it, all has nvml, dcgm, nvsentinel and the publisher to Kubernetes.
VARIANT ?= all
IMAGE_BUILD = UV="$(UV)" PYTHON=.venv/bin/python image/build

image: env build  ## Build the container image into dist/, as root (VARIANT=core or all)
	$(call say,building the image)
	@$(IMAGE_BUILD) image $(VARIANT)

image-root: env build  ## Build only its root file system, for another engine: see Containerfile
	$(call say,building the root file system)
	@$(IMAGE_BUILD) root $(VARIANT)

image-test: env  ## Run the image as the chart runs it, under runc, as root
	$(call say,running the image)
	@set -e; for image in $(CURDIR)/dist/*.oci.tar; do \
	  printf '==> %s\n' "$$image"; \
	  DEVICE_API_IMAGE="$$image" .venv/bin/pytest -q tests/image $(ARGS); \
	done

# The cluster is built once, outside the checkout, and lives in namespaces of its own: tests/e2e/run.
e2e: env  ## Run the image and the chart on a real cluster, as root (or on E2E_KUBECONFIG=...)
	@[ -n "$$E2E_KUBECONFIG" ] || tests/e2e/programs > /dev/null
	@[ -n "$$E2E_KUBECONFIG$$DEVICE_API_IMAGE" ] || $(MAKE) --no-print-directory image VARIANT=all
	$(call say,running on a real cluster)
	@tests/e2e/run .venv/bin/pytest -q $(ARGS)

image-lock: env  ## Choose the versions of what the image holds from PyPI anew
	$(call say,choosing versions)
	@UV="$(UV)" PYTHON=.venv/bin/python image/lock

audit: $(TOOLS)  ## Ask PyPI for known vulnerabilities of every locked version; needs a network
	$(call say,asking for known vulnerabilities)
	@set -e; for lock in locks/*.txt image/requirements-*.txt; do \
	  printf '==> %s\n' "$$lock"; \
	  $(call locked,audit) $(HATCH) run audit:look -r "$$lock"; \
	done

clean:  ## Remove everything that these targets made
	$(call say,cleaning)
	@rm -rf .hatch .venv .run build dist tools/fake_nvml/device_api_fake_nvml/lib .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the targets above stand on

prerequisites:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo 'Name another one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@command -v $(firstword $(CC)) >/dev/null || { \
	  echo 'A C compiler is needed for the simulated GPUs: install gcc or clang, or name one: make CC=...' >&2; \
	  exit 1; }

# The stamp carries the versions, so a new pin makes a new installation. It is written last.
$(TOOLS): locks/tools.txt | prerequisites
	$(call say,installing hatch $(HATCH_VERSION) and uv $(UV_VERSION) into .hatch)
	@$(PYTHON) -m venv --clear .hatch/venv || { \
	  echo 'python3 cannot make virtual environments: install its venv module (Debian: python3-venv).' >&2; \
	  exit 1; }
	@.hatch/venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  --require-hashes -r locks/tools.txt
	@touch .hatch/config.toml $@

# Members are installed in editable mode: their code is live, but entry points, dependencies and C
# sources are taken up by installing again. A new environment costs seconds, for uv keeps a cache.
env: $(ENVIRONMENT)  ## Make the development environment, or bring it up to date

$(ENVIRONMENT): $(TOOLS) hatch.toml locks/default.txt $(DISTRIBUTIONS:%=%/pyproject.toml) $(NATIVE_SOURCES)
	$(call say,preparing the environment)
	@$(HATCH) env remove default
	@$(call locked,default) $(HATCH) env create default
	@touch $@
