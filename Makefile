# Set-up, the main job, the tests: each one word. `make` alone prints this list.
VENV   ?= .venv
EXTRAS ?= cpu,demo,dev
BIN    := $(VENV)/bin
# Compiled modules are kept: without them each worker spends seconds on compiling its libraries.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup quickstart test check bench
help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(VENV)/.ready ## create .venv with everything installed (EXTRAS=gpu,demo,dev for a GPU)

# The pins are those of the CPU set-up; a GPU build of vllm brings its own.
# torch: from the machine's own wheel folder where pip is told of one, else from the torch index for EXTRAS.
$(VENV)/.ready: pyproject.toml constraints.txt overrides.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	links="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)"; pins="--constraint constraints.txt"; \
	case ",$(EXTRAS)," in *,gpu,*) backend=auto; pins="";; *) backend=cpu;; esac; \
	set -e; if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; else export UV_TORCH_BACKEND=$$backend; fi; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python $$pins --override overrides.txt -e '.[$(EXTRAS)]'; \
	case ",$(EXTRAS)," in *,dev,*) \
	$(BIN)/uv pip install --quiet --python $(BIN)/python $$pins --override overrides.txt -e '.[kenlm]' || \
	echo "kenlm was not built (it needs cmake and a C++ compiler): its tests will be skipped";; esac
	touch $@

quickstart: setup ## build recipes/quickstart.yaml from the sample pages
	$(BIN)/mixer build quickstart

# Two processes, a file in one of them; the real server's file first, or one would wait for it at the end. A thread
# each, or they would wait for one another.
test: setup ## the whole suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/test_vllm.py tests

check: setup ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup ## the benchmarks, a ratio against a named peer each
	for name in tokens build; do $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python benchmarks/kill.py benchmarks/kill.yaml
