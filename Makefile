# Two targets do everything from a fresh checkout: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PROTO := orchestrator/protocol/v1

.PHONY: demo demo-loop test setup lint proto benchmarks system-packages

demo: setup  ## train digits on two ranks, kill one in the middle, see it recover
	$(BIN)/python -m deploy.demo

demo-loop: setup  ## a watched model's world moves: drift seen, trained again, proven, promoted
	$(BIN)/python -m deploy.demo_loop

test: setup system-packages lint  ## everything that must hold; tests/README.md says what it takes
	$(BIN)/pytest --numprocesses 3

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	sh deploy/system-packages.sh build
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m trainers.build_ops
	touch $@

system-packages:  ## what the tests run for real: PostgreSQL, Redis, network namespaces, Prometheus, Alertmanager
	sh deploy/system-packages.sh test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

proto: setup  ## regenerate the wire's Python code after a change of the .proto
	$(BIN)/python -m grpc_tools.protoc -I $(PROTO) --python_out=$(PROTO)/generated --pyi_out=$(PROTO)/generated \
	  --grpc_python_out=$(PROTO)/generated $(PROTO)/evertrain.proto
	sed -i 's/^import evertrain_pb2/from orchestrator.protocol.v1.generated import evertrain_pb2/' \
	  $(PROTO)/generated/evertrain_pb2_grpc.py

benchmarks: setup  ## the issue's numbers; add QUICK=--quick for three pairs instead of ten
	for each in launch overhead recovery api planning loader throughput sweep search_quality observe scrape footprint; do $(BIN)/python -m tests.benchmarks.$$each $(QUICK) || exit 1; done
