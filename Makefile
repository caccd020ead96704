# From a bare clone: `make app` sets up .venv and starts the app, `make test` checks everything.
# Needs Python 3.11 to 3.14; all else goes into .venv. Your pip configuration is respected.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

VENV := .venv
PY   := $(VENV)/bin/python
STAMP_APP := $(VENV)/.stamp-app
STAMP_DEV := $(VENV)/.stamp-dev

# True for a Python the pinned packages have wheels for (torchvision refuses 3.14.1).
PY_FITS := import sys; v = sys.version_info; sys.exit(not ((3, 11) <= v < (3, 15) and v[:3] != (3, 14, 1)))

# True for the Python of a virtual environment: nothing is ever installed outside of one.
PY_IN_VENV := import sys; sys.exit(sys.prefix == sys.base_prefix)

# The first that runs and fits; only looked up when .venv has to be made.
# Another one: make app PYTHON=/path/to/python3
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	if "$$p" -c '$(PY_FITS)' >/dev/null 2>&1; then echo "$$p"; break; fi; done)

# Extra arguments: make app ARGS="..." and make test ARGS="-k name"
ARGS ?=

.PHONY: help app test lint format browser clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

app: $(STAMP_APP) ## set up on first use, then start the app and open it in the browser
	@exec $(PY) app.py $(ARGS)

# Lint, format and wall findings do not keep the tests from running; any of the four fails the target.
test: $(STAMP_DEV) browser ## set up on first use, then lint, format check, walls and all tests
	@failed=; \
	echo 'ruff check .'; $(PY) -m ruff check . || failed="$$failed ruff-check"; \
	echo 'ruff format --check .'; $(PY) -m ruff format --check . || failed="$$failed ruff-format"; \
	echo 'lint-imports'; $(VENV)/bin/lint-imports --no-cache || failed="$$failed walls"; \
	echo 'pytest $(ARGS)'; $(PY) -m tests.run $(ARGS) || failed="$$failed pytest"; \
	if [ -n "$$failed" ]; then echo "make test: failed:$$failed" >&2; exit 1; fi

lint: $(STAMP_DEV) ## look for mistakes, layout that differs and broken walls, changing nothing
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/lint-imports --no-cache

format: $(STAMP_DEV) ## lay out the code and mend what can be mended by rule
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean: ## remove .venv and the caches (never runs/ or weights/)
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .gradio
	find . \( -path ./.git -o -path ./runs -o -path ./weights -o -path ./data \) -prune \
		-o -type d -name __pycache__ -exec rm -rf {} +

# --- set-up -----------------------------------------------------------------------------
# A stamp is written only after its whole install succeeded, so an interrupted one is taken
# up again, and a finished one starts at once without a network.

$(STAMP_APP): requirements.txt
	$(make_venv)
	@echo 'Installing requirements.txt into $(VENV) (several GB on Linux; only this first time) ...'
	@rm -f $(STAMP_APP) $(STAMP_DEV)
	@$(PY) -m pip install -r requirements.txt || { $(install_failed); }
	@touch $(STAMP_APP)

$(STAMP_DEV): requirements-dev.txt requirements.txt
	$(make_venv)
	@echo 'Installing requirements-dev.txt into $(VENV) (several GB on Linux; only this first time) ...'
	@rm -f $(STAMP_APP) $(STAMP_DEV)
	@$(PY) -m pip install -r requirements-dev.txt || { $(install_failed); }
	@touch $(STAMP_APP) $(STAMP_DEV)

install_failed = echo 'The install did not finish: see the message above; "make" again takes it up where it stopped.' >&2; exit 1

# Makes .venv unless a working one is there (a half-made one, without pip, is made anew).
define make_venv
@if { $(PY) -c '$(PY_FITS)' && $(PY) -c '$(PY_IN_VENV)' && $(PY) -m pip --version; } >/dev/null 2>&1; \
then exit 0; fi; \
py="$(PYTHON)"; \
if [ -z "$$py" ]; then \
	echo 'No Python 3.11 to 3.14 found: install one, or name it with "make app PYTHON=/path/to/python3".' >&2; exit 1; fi; \
if ! "$$py" -c '$(PY_FITS)' >/dev/null 2>&1; then \
	echo "$$py is not a usable Python 3.11 to 3.14: name another one with PYTHON=/path/to/python3." >&2; exit 1; fi; \
if ! "$$py" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	v=$$("$$py" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	echo "$$py cannot make virtual environments here: install its venv module (Debian, Ubuntu: apt install python$$v-venv) and run make again." >&2; exit 1; fi; \
echo "Making $(VENV) with $$("$$py" -V) ..."; \
"$$py" -m venv --clear $(VENV) || { \
	rm -rf $(VENV); echo "Could not make $(VENV) with $$py: see the message above." >&2; exit 1; }
endef

# The browser tests need a Chromium; without one they skip and say so, so nothing here may fail.
browser:
	@for b in chromium chromium-browser google-chrome; do \
		if command -v "$$b" >/dev/null 2>&1; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo 'Installing Chromium for the browser tests ...'; \
		{ DEBIAN_FRONTEND=noninteractive apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } </dev/null >/dev/null 2>&1 && exit 0; \
	fi; \
	echo 'No Chromium here: the browser tests will be skipped.'
