# `make demo`, `make app` and `make test` need Python 3.11 or newer. They install everything else into .venv.
#
#   make demo      train a small model for a minute on text that Python carries, and generate text from it
#   make app       open the web app in the browser
#   make test      the checks, then the tests; tests that depend on the processor run on slower kernels as well;
#                  last, the browser tests
#   make test KERNELS=avx2   all tests on these kernels only: another variant that runs here, or `off`
#   make test-all  all tests on every variant that runs here, and without kernels
#   make browser-tests   the tests of the web page in Chromium; root on Debian installs it first, others without it skip
#                  them
#   make check     the checks only: format, lint, types, imports, generated parts of pages
#   make format    format Python and C++ for the checks
#   make kernels   build changed C++ in src/charloom/kernels/; demo, test and bench do so first
#   make check-kernels   build the kernels with AddressSanitizer and UBSan, and run their tests; then check-threads;
#                  some minutes
#   make check-threads   run the thread pool, training and generation under ThreadSanitizer, without Python; a minute
#   make fuzz      give damaged models, runs, corpora and checkpoints to charloom, with the sanitizers; INPUTS=2000 of
#                  each kind, KINDS="model run", SEED=1; REPEAT=build/fuzz/... repeats one finding; minutes
#   make check-arm   build the kernels for 64-bit ARM, and run their tests under emulation; ten to twenty minutes
#   make bench     the programs under benchmarks/, beside their peers, which it installs in their own venv;
#                  half an hour; PROCESSOR=avx2 imitates a processor with AVX2 only, for all programs
#   make results   run the trials that benchmarks/plan/results.jsonl lacks, then generate docs/results.md; some hours
#                  for all trials; can be interrupted
#   make docs      generate docs/cli.md, and the tables of other pages between [[[cog and [[[end]]]
#   make notebook  execute docs/notebooks/first-steps.ipynb and store its outputs; two minutes
#   make lock      generate requirements.lock (needs the network and Python 3.11)
#   make clean     remove .venv and every cache, but not runs/

# The first Python that is new enough and can create a venv; 3.11 comes first because the lock is made with it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$python && break; done)
VENV := .venv
INSTALLED := $(VENV)/installed
DEVELOPMENT := $(VENV)/installed-development
BIN := $(VENV)/bin
# A venv for TensorFlow and onnxruntime, which need older releases of packages that charloom uses.
PEERS := build/peers
# Python compiles a module when it is first imported; compiling all that is installed takes as long as installing it.
PIP = $(1)/bin/python -m pip install --no-compile --quiet --quiet
# What mypy and ruff check; a folder that does not exist is left out.
SOURCES := src docs $(wildcard benchmarks)
CPP := $(shell find src/charloom/kernels -name "*.h" -o -name "*.cpp") $(wildcard tests/kernels/*.cpp benchmarks/*.c)
# Pages that cog fills: the code stands in each page, before what it generated.
PAGES := README.md CONTRIBUTING.md $(wildcard docs/*.md docs/*/*.md)
COG = $(BIN)/cog --verbosity=1 -I docs -I benchmarks/plan
# two_hosts.py takes half an hour and needs root; hosts.py is a part of it.
BENCHMARKS := $(sort $(filter-out benchmarks/hosts.py benchmarks/two_hosts.py,$(wildcard benchmarks/[a-z]*.py)))
# The lock contains all tools that build the C++, so a machine only needs a compiler.
CMAKE := $(BIN)/cmake
BUILD := $(CMAKE) -G Ninja -S . --log-level=NOTICE -Wno-unused-cli -DCMAKE_MAKE_PROGRAM="$(abspath $(BIN)/ninja)" \
	-DPython_EXECUTABLE="$(abspath $(BIN)/python)"
SANITIZED := build/sanitized
ASAN := detect_leaks=0
UNDER_SANITIZERS = KERNELS_FOLDER="$(abspath $(SANITIZED)/modules)" PYTHONMALLOC=malloc ASAN_OPTIONS=$(ASAN) \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)"
THREADS := build/threads/threads
TSAN := halt_on_error=1 die_after_fork=0
# For `make fuzz`: the number of inputs of each kind, and the kinds (empty: all).
INPUTS := 2000
SEED := 0
KINDS :=
# For `make bench`: the library that imitates a lesser processor.
IMITATION = $(PROCESSOR:%=build/%_only.so)
IMITATED = $(IMITATION:%=LD_PRELOAD="$(CURDIR)/%")
# Three processes on two cores, because many tests wait for processes, servers or a browser.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist worksteal
APT := apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20
# Imitates a processor with fewer instructions: tests/conftest.py limits PyTorch to them as well.
TEST_ON = echo "== tests on the kernels $(1)"; CHARLOOM_KERNELS=$(1) $(PYTEST)
# The variants that run here, without the fastest one.
LESSER := $(BIN)/python -c 'from charloom.kernels import runnable; print(*runnable()[1:], *["off"][: len(runnable())])'
# The published figures were measured with this release of torch.
LOCK_TORCH := torch==2.13.0
LOCK_TOOL := pip-tools==7.6.2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo app ready chromium test test-all browser-tests check format kernels sanitized check-kernels check-threads fuzz check-arm bench results docs notebook lock clean

help:
	@sed -n 's/^#   //p' Makefile

# A compiler that fails does not stop the demo.
demo: $(INSTALLED)
	@$(MAKE) --no-print-directory kernels || echo "the kernels do not compile here; NumPy takes their place" >&2
	@$(BIN)/charloom demo

app: $(INSTALLED)
	@$(MAKE) --no-print-directory kernels || echo "the kernels do not compile here; NumPy takes their place" >&2
	@$(BIN)/charloom app

# The kernels compile while the other packages, and Chromium, are downloaded.
ready:
	@$(MAKE) --no-print-directory -j 3 $(DEVELOPMENT) kernels $(if $(KERNELS),,chromium)

# Without Chromium, a machine can run everything but the browser tests, so a download that fails is no error.
chromium:
	@command -v chromium >/dev/null || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null || { \
		echo "installing Chromium for the browser tests (once; a minute)" >&2; export DEBIAN_FRONTEND=noninteractive; \
		{ $(APT) update && $(APT) install -y --no-install-recommends chromium; } >/dev/null 2>&1 </dev/null || true; }

test: ready
	@$(MAKE) --no-print-directory check
ifdef KERNELS
	@$(call TEST_ON,$(KERNELS))
else
	@$(PYTEST)
	@set -e; for kernels in $$($(LESSER)); do case $$kernels in avx2|off) $(call TEST_ON,$$kernels) -m "processor and not once"; esac; done
	@$(MAKE) --no-print-directory browser-tests
endif

test-all: ready
	@$(MAKE) --no-print-directory check
	@$(PYTEST)
	@set -e; for kernels in $$($(LESSER)); do $(call TEST_ON,$$kernels); done
	@$(MAKE) --no-print-directory browser-tests

browser-tests: $(DEVELOPMENT) chromium
	@if command -v chromium >/dev/null; then echo "== browser tests"; $(PYTEST) tests/browser; \
	else echo "the browser tests are skipped: Chromium is not installed (apt-get install chromium)"; fi

check: $(DEVELOPMENT)
	@$(BIN)/ruff format --check $(SOURCES) tests
	@$(BIN)/ruff check $(SOURCES) tests
	@$(BIN)/clang-format --dry-run --Werror $(CPP)
	@$(BIN)/mypy $(SOURCES) tests/typed_calls.py
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(COG) --check --check-fail-msg='run `make docs`' $(PAGES)

format: $(DEVELOPMENT)
	@$(BIN)/ruff format $(SOURCES) tests
	@$(BIN)/ruff check --fix $(SOURCES) tests
	@$(BIN)/clang-format -i $(CPP)

# Configuring again takes a moment and finds a compiler that was installed later; ninja builds only changed files.
# MAKEFLAGS is empty because ninja would take the jobs of a `make -j` as its own.
kernels: $(INSTALLED)
	@test -d build/kernels || echo "building the kernels (once; a minute or two)" >&2
	@$(BUILD) -B build/kernels >/dev/null
	@MAKEFLAGS= $(CMAKE) --build build/kernels -- --quiet

# Python itself is built without the sanitizers, so their libraries must be loaded first, with libstdc++ for exceptions.
# With PYTHONMALLOC=malloc, the sanitizer sees the end of each array that Python allocates.
sanitized: $(DEVELOPMENT)
	@$(BUILD) -B $(SANITIZED) -DCHARLOOM_SANITIZE=ON -DCHARLOOM_OUTPUT="$(abspath $(SANITIZED)/modules)" >/dev/null
	@MAKEFLAGS= $(CMAKE) --build $(SANITIZED) -- --quiet

check-kernels: sanitized check-threads
	@$(UNDER_SANITIZERS) $(BIN)/python -m pytest tests/kernels

# The thread pool, training and generation in a C++ program, because ThreadSanitizer does not know Python's locks. Then
# again without a barrier: ThreadSanitizer must report this, else the first run proves nothing.
check-threads: $(THREADS)
	@TSAN_OPTIONS="$(TSAN)" $(THREADS)
	@if TSAN_OPTIONS="$(TSAN)" $(THREADS) without-barrier 2>&1 | grep -q "WARNING: ThreadSanitizer: data race"; \
	then echo "and without a barrier, a data race is reported"; \
	else echo "without a barrier, ThreadSanitizer must report a data race; it reports none" >&2; exit 1; fi

$(THREADS): $(filter-out %/module.cpp,$(CPP))
	@mkdir -p $(@D)
	@$(CXX) -std=c++20 -O1 -g -fsanitize=thread -Wall -Wextra -Wno-psabi -DCHARLOOM_LANES=4 -DCHARLOOM_REGISTERS=16 \
		-Isrc/charloom/kernels $(filter %.cpp,$^) -pthread -o $@

# An allocation that is too large fails, as on any machine. PyTorch, which an import loads, defines some names twice.
fuzz: ASAN := $(ASAN):detect_odr_violation=0:allocator_may_return_null=1:max_allocation_size_mb=4096:hard_rss_limit_mb=6144
fuzz: sanitized
	@$(UNDER_SANITIZERS) OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py \
		$(if $(REPEAT),--repeat "$(REPEAT)",$(KINDS) --inputs $(INPUTS) --seed $(SEED))

check-arm: $(DEVELOPMENT)
	@tests/kernels/check_arm.sh $(VENV)

bench: $(PEERS)/installed kernels $(IMITATION)
	@set -e; for program in $(BENCHMARKS); do echo "== $$program"; $(IMITATED) $(PEERS)/bin/python $$program; done

build/%.so: benchmarks/%.c
	@$(CC) -O2 -Wall -Wextra -shared -fPIC -o $@ $< -ldl

results: $(DEVELOPMENT) kernels
	@$(BIN)/python benchmarks/plan/run.py
	@$(BIN)/python benchmarks/plan/page.py
	@$(COG) -r docs/results.md

docs: $(DEVELOPMENT)
	@$(COG) -r $(PAGES)

notebook: $(DEVELOPMENT)
	@$(BIN)/python docs/execute_notebook.py

# charloom and its build tools, in the lock's versions; no torch.
$(INSTALLED): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "charloom needs Python 3.11 or newer with its venv module; none is on PATH" \
		"(Debian: apt install python3-venv; any other place: make PYTHON=/path/to/python3)" >&2; exit 1; }
	@echo "installing charloom into $(VENV) (once; a minute)" >&2
	@test -f $@ || $(PYTHON) -m venv --clear $(VENV)
	@$(call PIP,$(VENV)) --constraint requirements.lock cmake nanobind ninja scikit-build-core
	@$(call PIP,$(VENV)) --constraint requirements.lock --no-build-isolation --editable '.[serve]'
	@touch $@

# Everything else that tests, checks and benchmarks need.
$(DEVELOPMENT): $(INSTALLED)
	@echo "installing requirements.lock into $(VENV) (once; a few minutes at most)" >&2
	@$(call PIP,$(VENV)) --requirement requirements.lock
	@touch $@

# The peers in their own releases, all other packages in the lock's versions. Its h5py is too new for TensorFlow.
$(PEERS)/installed: benchmarks/peers.txt $(INSTALLED)
	@echo "installing charloom and its peers into $(PEERS) (once; a few minutes)" >&2
	@test -f $@ || $(PYTHON) -m venv --clear $(PEERS)
	@grep -v '^h5py==' requirements.lock > $(PEERS)/constraints.txt
	@$(call PIP,$(PEERS)) --constraint $(PEERS)/constraints.txt cmake nanobind ninja scikit-build-core
	@$(call PIP,$(PEERS)) --constraint $(PEERS)/constraints.txt --requirement benchmarks/peers.txt
	@$(call PIP,$(PEERS)) --constraint $(PEERS)/constraints.txt --no-build-isolation --editable '.[torch,serve]'
	@touch $@

# In its own venv, so it works after a change of the build backend, and with a lock that no longer installs.
lock:
	@python3.11 --version >/dev/null || { echo "the lock is made with Python 3.11, which is not on PATH" >&2; exit 1; }
	@set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	python3.11 -m venv $$place; \
	$$place/bin/python -m pip install --quiet --quiet '$(LOCK_TOOL)'; \
	SKBUILD_WHEEL_CMAKE=false CUSTOM_COMPILE_COMMAND='make lock' $$place/bin/pip-compile --quiet \
		--upgrade --upgrade-package '$(LOCK_TORCH)' --strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--annotation-style line --extra dev --build-deps-for editable \
		--output-file requirements.lock pyproject.toml
	@# `+cpu` names one build. The lock names the release, and pip finds the build for each machine. pip-compile reads the
	@# extras from charloom itself and then lists it, so its line is removed.
	@sed -i.made -e 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' -e '/^charloom @/d' -e 's/charloom, \(charloom (\)/\1/' \
		requirements.lock && rm requirements.lock.made

clean:
	@rm -rf $(VENV) build dist src/charloom/kernels/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests docs $(wildcard benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +
