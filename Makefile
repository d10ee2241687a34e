# Every target makes what it needs first: a virtual environment in .venv, and what is installed in it.
PYTHON ?= python3
GOLD ?= ../shared/data
BIN := .venv/bin

.PHONY: help demo up test test-scaled chaos check bench screens quality train-ner messages format
help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11, 3.12 or 3.13 is needed; this is {v.major}.{v.minor}. Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the requirements into .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@echo "Installing what tests and checks need into .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: .venv/installed  ## A real scrape of a bundled site, live in the browser (ONCE=1 ends after the job)
	@$(BIN)/python manage.py demo $(if $(filter 1,$(ONCE)),--once) $(if $(PORT),--port $(PORT))

up: .venv/installed  ## The product on this machine: pages on http://127.0.0.1:8000 and workers
	@$(BIN)/python manage.py up

test: .venv/installed-dev  ## All tests, the browser's included
	@$(BIN)/python -m jobs.tests.run

test-scaled: .venv/installed-dev  ## The same tests on a PostgreSQL and a Redis of their own
	@$(BIN)/python -m jobs.tests.run --scaled

chaos: .venv/installed-dev  ## 300 jobs while something is killed every other second, then the books are checked (SEED=n)
	@$(BIN)/python -m osint.tests.chaos $(if $(SEED),--seed $(SEED))

check: .venv/installed-dev  ## Format, lint, types, imports, templates, migrations, settings, then the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy jobs osint
	$(BIN)/lint-imports
	$(BIN)/djlint --lint templates
	$(BIN)/python manage.py makemigrations --check --dry-run
	PUBLIC_URL=https://fieldwork.example.org $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(MAKE) test

bench: .venv/installed-dev  ## Figures as JSON lines, beside their baselines
	@$(BIN)/python -m bench.run

screens: .venv/installed-dev  ## The pictures of docs/screens anew (ONLY="dashboard list" makes these)
	@$(BIN)/python -m bench.screens $(ONLY)

quality: .venv/installed-dev  ## How well the job types do on the gold data (GOLD=folder), as JSON lines
	@$(BIN)/python -m bench.quality $(GOLD)

train-ner: .venv/installed  ## Make the model of names anew from the gold data (GOLD=folder)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r osint/ner/requirements.txt
	@$(BIN)/python -m osint.ner.train $(GOLD)

messages: .venv/installed-dev  ## Texts of templates and scripts into the catalogues, then compile them (needs GNU gettext)
	@$(BIN)/python manage.py makemessages --all --no-location --no-wrap -i "var/*" -i ".venv/*" -i "osint/tests/*"
	@$(BIN)/python manage.py makemessages --all --domain djangojs --no-location --no-wrap -i "var/*" -i ".venv/*" -i "static/vendor/*"
	@$(BIN)/python manage.py compilemessages -i ".venv/*"

format: .venv/installed-dev  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
