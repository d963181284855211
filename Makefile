# Two environments: the default with transformers 5, and one with transformers 4.57 and optimum-onnx. Both are made from
# scratch here.
PYTHON ?= python3
VENV := .venv
VENV4 := .venv-transformers4
MODEL := models/SmolLM2-135M-Instruct
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: quickstart test test-transformers4 test-resolver test-slow gpu-report lint types docs model clean

quickstart: $(MODEL)/config.json  ## The whole loop on a small model: about 15 minutes on 2 CPU cores.
	$(VENV)/bin/trl-rrtf run --config recipes/quickstart/pipeline.yaml

test: $(VENV)/.dev  ## The tests, with transformers 5.
	$(VENV)/bin/python -m pytest

test-transformers4: $(VENV4)/.dev  ## The tests, with transformers 4.57.
	$(VENV4)/bin/python -m pytest

test-resolver: $(VENV)/.dev  ## Whether a resolver finds versions for every extra; asks the package index, by uv.
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/python -m pytest -m slow tests/test_resolver.py

test-slow: $(VENV)/.dev $(MODEL)/config.json  ## What takes minutes: the quick start's model exported, and every family.
	$(VENV)/bin/python -m pytest -m slow tests --ignore tests/test_resolver.py

gpu-report: $(VENV)/.dev $(MODEL)/config.json  ## Every check and benchmark that a GPU decides; `GPU_REPORT="--model PATH"` for another model.
	$(VENV)/bin/python recipes/benchmarks/gpu_report.py --model $(MODEL) --output runs/gpu-report $(GPU_REPORT)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev
	$(VENV)/bin/mypy

docs: $(VENV)/.docs
	$(VENV)/bin/mkdocs build --strict

model: $(MODEL)/config.json

$(MODEL)/config.json: $(VENV)/.quickstart
	$(VENV)/bin/python recipes/quickstart/prepare_model.py --output $(MODEL)

# torch first and alone, with the pinned version: on a machine with a GPU the same line gives the CUDA build.
$(VENV)/.base: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(TORCH)
	touch $@

$(VENV)/.quickstart: $(VENV)/.base pyproject.toml
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[peft,quickstart]'
	touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[peft,onnx,genai,quickstart,dev]'
	$(VENV)/bin/pip check
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[peft,onnx,genai,quickstart,dev,docs]'
	touch $@

$(VENV4)/.dev: constraints-transformers4.txt pyproject.toml
	$(PYTHON) -m venv $(VENV4)
	$(VENV4)/bin/pip install --quiet $(TORCH)
	$(VENV4)/bin/pip install --quiet -c constraints-transformers4.txt -e '.[peft,onnx,genai,optimum,quickstart,dev]'
	$(VENV4)/bin/pip check
	touch $@

clean:
	rm -rf $(VENV) $(VENV4) .pytest_cache .mypy_cache .ruff_cache site
