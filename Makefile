# Every task sets up what it needs: .venv is made on first use and renewed when csrc/ or pyproject.toml change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
C_SOURCES := $(wildcard csrc/*.c)
C_INPUTS := $(C_SOURCES) $(wildcard csrc/*.h csrc/*.py csrc/CMakeLists.txt)
C_FLAGS := -std=gnu11 -O3 -Wall -Wextra -Wconversion -Werror -ffp-contract=off -fno-trapping-math -fno-math-errno -Icsrc
C_SANITIZE := -g -fsanitize=address,undefined -fno-sanitize-recover=all

.PHONY: demo test test-c test-soak check lint type fmt vectors bench clean

demo: $(STAMP)
	$(BIN)/fedcore demo

test: $(STAMP) test-c
	$(BIN)/python -m pytest

test-soak: $(STAMP)
	$(BIN)/python -m pytest -m soak

test-c: build/test_kernels build/test_kernels_sanitized
	build/test_kernels
	build/test_kernels_sanitized

check: lint type build/test_kernels

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

bench: $(STAMP)
	$(BIN)/python -m bench

clean:
	rm -rf .venv build

$(STAMP): pyproject.toml $(C_INPUTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

build/test_kernels: csrc/tests/test_kernels.c $(C_INPUTS)
	mkdir -p build
	$(CC) $(C_FLAGS) -o $@ csrc/tests/test_kernels.c $(C_SOURCES)

build/test_kernels_sanitized: csrc/tests/test_kernels.c $(C_INPUTS)
	mkdir -p build
	$(CC) $(C_FLAGS) $(C_SANITIZE) -o $@ csrc/tests/test_kernels.c $(C_SOURCES)
