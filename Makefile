# Every task sets up what it needs: .venv is made on first use and renewed when csrc/ or pyproject.toml change.
# The demonstration needs less than the tests, which also bring PyTorch and JAX.
# .github/CONTRIBUTING.md says what each target is for.
PYTHON ?= python3
BIN := .venv/bin
DEMO_STAMP := .venv/.installed
STAMP := .venv/.tests-installed
BENCH_STAMP := .venv-bench/.installed
C_SOURCES := $(wildcard csrc/*.c)
C_HEADERS := $(wildcard csrc/*.h)
C_INPUTS := $(C_SOURCES) $(C_HEADERS) $(wildcard csrc/*.py csrc/CMakeLists.txt)
C_FLAGS := -std=gnu11 -O3 -Wall -Wextra -Wconversion -Werror -ffp-contract=off -fno-trapping-math -fno-math-errno -Icsrc
C_SANITIZE := -O2 -g -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all
# Modules whose tests share fixtures stay together until a worker has nothing left to do.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
# The parts by themselves: no training, no service, no attacks, not every kernel variant.
FAST := $(addprefix tests/,$(addsuffix .py,test_layers test_hygiene test_params test_planning test_docs test_readme)) \
	$(addprefix tests/,messages primitives protocol store transcript fedcore/codec fedcore/statistics) \
	$(addprefix tests/kernels/test_,$(addsuffix .py,field library parallel reference))
# As in pyproject.toml: pytest takes one expression.
USUAL := not exhaustive and not soak and not fuzz and not peers and not host
# pytest keeps what it rewrote: half of the time of collecting.
unexport PYTHONDONTWRITEBYTECODE
ARM_CC ?= aarch64-linux-gnu-gcc
FUZZ_SECONDS ?= 60
# Other Pythons: of pyenv, or given.
PYTHONS ?= $(wildcard $(addprefix $(HOME)/.pyenv/versions/3.,$(addsuffix .*/bin/python3.*[0-9],12 13 14)))
DOCUMENTED := secagg $(addprefix secagg.,kernels primitives messages protocol store store.sql audit registry embedding service transcript) \
	fedcore $(addprefix fedcore.,rounds strategies codec learners data statistics evaluation privacy adversaries experiments)

.PHONY: demo test test-fast test-exhaustive test-lowest test-pythons test-hosts docs test-c test-arm test-ct test-soak mutants fuzz fuzz-py check lint type fmt vectors bench wheel clean
.SECONDARY:

demo: $(DEMO_STAMP)
	$(BIN)/fedcore demo

test: $(STAMP) test-c
	$(PYTEST) --durations=10

test-fast: $(STAMP) build/plain/test_kernels
	build/plain/test_kernels
	$(PYTEST) -m "$(USUAL) and not slow" $(FAST)

# More of the same: further phases, sizes and real data.
test-exhaustive: $(STAMP)
	$(PYTEST) -m exhaustive

# What is installed works with the lowest versions that are declared, and with every Python that is here.
test-lowest:
	mkdir -p build
	$(PYTHON) .ci/lowest.py > build/lowest.txt
	.ci/installed $(PYTHON) build/lowest build/lowest.txt fedcore,postgresql,dp,parquet,tensorboard,export

test-pythons:
	for python in $(PYTHONS); do \
		.ci/installed $$python build/pythons/$$(basename $$python) /dev/null fedcore,postgresql,dp,parquet,export || exit 1; \
	done

# Other stacks, each in an environment of its own: it installs beside them, and their adapters pass.
test-hosts: $(STAMP)
	$(BIN)/python .ci/hosts.py $(HOSTS)

# What others install: an sdist, wheels for x86_64 and aarch64, in build/wheels/dist; tried where they run.
wheel:
	$(PYTHON) .ci/wheels.py

test-soak: $(STAMP)
	$(BIN)/python -m pytest -m soak

# Each defence removed in turn: the matrix of defences and the attacks that succeed without them.
mutants: $(STAMP)
	$(BIN)/python -m tests.attacks.mutants

test-c: build/plain/test_kernels build/sanitized/test_kernels build/plain/test_stack build/o2/test_stack
	build/plain/test_kernels
	build/sanitized/test_kernels
	build/plain/test_stack
	build/o2/test_stack

# ARM under emulation: known answers, and vectors written by Python.
test-arm: build/arm/test_kernels build/arm/run_vectors $(STAMP)
	$(BIN)/python -m tests.kernels.c_vectors build/vectors.bin
	qemu-aarch64 build/arm/test_kernels
	qemu-aarch64 build/arm/run_vectors build/vectors.bin

# Secrets are marked undefined: valgrind tells when a branch or an address depends on one.
test-ct: build/plain/test_constant_time build/o2/test_constant_time
	valgrind --quiet --error-exitcode=1 build/plain/test_constant_time
	valgrind --quiet --error-exitcode=1 build/o2/test_constant_time

# The corpus is kept, so that a later run starts where this one ended.
fuzz: build/fuzz/fuzz_kernels
	mkdir -p build/fuzz/corpus
	build/fuzz/fuzz_kernels -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -print_final_stats=1 build/fuzz/corpus

# Decoders and sessions, guided by coverage (the corpus is kept in build/fuzz/python), and a running server.
fuzz-py: $(STAMP)
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -m fuzz tests/fuzz tests/service/kill

check: lint type build/plain/test_kernels

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)
	$(BIN)/mypy

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

vectors: $(STAMP)
	$(BIN)/python -m tests.vectors.make

# In an environment of its own: the peers pin older versions of what the tests use.
bench: $(BENCH_STAMP)
	.venv-bench/bin/python -m bench $(BENCH)

# API documentation, to be read from build/docs/index.html; nothing in it is loaded from elsewhere.
docs: $(STAMP)
	$(BIN)/python -m pdoc --template-directory .github/docs --output-directory build/docs $(DOCUMENTED)

clean:
	rm -rf .venv .venv-bench build

$(DEMO_STAMP): pyproject.toml $(C_INPUTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[fedcore]'
	touch $@

$(STAMP): $(DEMO_STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(BENCH_STAMP): pyproject.toml $(C_INPUTS)
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --editable '.[bench-peers]'
	touch $@

# The kernels once per flavor, linked into the programs of csrc/tests: build/FLAVOR/PROGRAM.
define FLAVOR # name, compiler, flags
build/$(1)/%.o: csrc/%.c $$(C_HEADERS) Makefile
	@mkdir -p $$(@D)
	$(2) $(3) -c -o $$@ $$<

build/$(1)/%: csrc/tests/%.c csrc/tests/helpers.h $$(C_SOURCES:csrc/%.c=build/$(1)/%.o)
	$(2) $(3) -o $$@ $$(filter-out %.h,$$^)
endef
$(eval $(call FLAVOR,plain,$(CC),$(C_FLAGS) -g))
$(eval $(call FLAVOR,o2,$(CC),$(C_FLAGS) -g -O2))
$(eval $(call FLAVOR,sanitized,$(CC),$(C_FLAGS) $(C_SANITIZE) -DSTANDALONE))
$(eval $(call FLAVOR,arm,$(ARM_CC),$(C_FLAGS) -static))
$(eval $(call FLAVOR,fuzz,clang,$(C_FLAGS) $(C_SANITIZE) -fsanitize=fuzzer))
