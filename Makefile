# make run      set up .venv and see edits take effect in front of a real language model
# make install  only set up .venv      make test  set up and run the tests
# make lint     style, types, imports  make constraints  pin what .venv holds now
# make clients  try the gateway with clients of others: LangChain, LiteLLM, the Vercel AI SDK, a browser, …
# make graph    draw the import graph of the rooms, here and in serac_gateway/docs/architecture.md
# make manifests  write docker/kubernetes/ from the Helm chart
# PYTHON=/path/to/python3.11 picks the interpreter, FAISS=gpu the index that uses a CUDA device, PYTEST_ARGS
# what is run and how: by default two files of tests side by side, as most of them wait.
#
# pip's own settings (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, pip.conf) are respected. On Linux the pinned torch
# is several GB smaller from an index that has PyTorch's CPU builds.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
FAISS  ?= cpu
PYTEST_ARGS ?= --numprocesses 2 --max-worker-restart 1 --dist loadfile --no-loadscope-reorder --durations 15
VENV   := .venv
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input

.PHONY: help install run test clients lint graph manifests constraints
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

install: $(VENV)/.installed

run: install
	$(VENV)/bin/serac demo

test: $(VENV)/.installed-dev
	HF_HUB_OFFLINE=1 $(VENV)/bin/pytest $(PYTEST_ARGS)

# They pin each other's versions, so they have an environment of their own; those for node are left out where
# there is no npm.
clients: $(VENV)/.installed-dev
	"$(PYTHON)" -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r tests/clients/requirements.txt
	! command -v npm >/dev/null || npm --prefix tests/clients/node install --no-audit --no-fund --no-package-lock
	SERAC_CLIENTS_PYTHON=.venv-clients/bin/python HF_HUB_OFFLINE=1 $(VENV)/bin/pytest -rs tests/clients

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

graph: $(VENV)/.installed-dev
	$(VENV)/bin/python -m tests.architecture.import_graph serac_gateway/docs/architecture.md

manifests: $(VENV)/.installed-dev
	$(VENV)/bin/python -m tests.architecture.helm_chart docker/kubernetes/serac-gateway.yaml

# The stamps make a second `make run` start at once; a change of what is installed runs pip again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing serac_gateway and its pinned dependencies into $(VENV)/: about 2 GB, 3 to 6 minutes; pip shows"
	@echo "the time left of each download, and how many packages are installed"
	@# The pip of older Pythons shows nothing while it installs; where the index has no newer one, it has to do.
	@$(PIP) install --quiet --upgrade 'pip>=25.1,<27' || true
	$(PIP) install --constraint constraints.txt --editable '.[$(FAISS)]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Adding the tools that test and train it"
	$(PIP) install --constraint constraints.txt --editable '.[$(FAISS),otel,mcp,train,dev]'
	@touch $@

$(VENV)/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "serac_gateway needs Python 3.11 or newer and found '$(PYTHON)' ($$("$(PYTHON)" -V 2>&1 | tail -1)); name one: make install PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "Making $(VENV)/ with $$("$(PYTHON)" -V)"
	@"$(PYTHON)" -m venv $(VENV)

# The tested set; made with Debian 12's Python 3.11.2, which needs a backport more than later ones. Local
# version labels (torch's +cpu) are cut: an index may hold the release under another one.
constraints: $(VENV)/.installed-dev
	@{ echo "# Every package of .[cpu,otel,mcp,train,dev] at the version that the tests ran with. Made by: make constraints"; \
	   $(PIP) freeze --all --exclude pip --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > constraints.tmp && mv constraints.tmp constraints.txt
