# The project's commands. `make help` lists them; `make train ARGS="trainer.max_epochs=1"` passes overrides on.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/ready
PACKAGE := digits

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all test-gpu lint format notebook tensorboard dashboard-picture lock rename accuracy bench bench-sweep reproduce soak golden update schemas

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 26

setup: $(READY)  ## create .venv and install what requirements.txt pins

# uv is bootstrapped with pip once, from the same pinned and hashed list as everything else.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > .venv/uv.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

train: $(READY)  ## train and test (ARGS="..." are overrides)
	@$(BIN)/python train.py $(ARGS)

test: $(READY)  ## run the tests, but the slow ones and those whose programs are not installed
	@$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

test-all: $(READY)  ## run all tests but those of a GPU
	@$(BIN)/pytest -n 2 --dist worksteal --all $(ARGS)

test-gpu: $(READY)  ## run the tests of runs on a GPU, on a machine that has one
	@$(BIN)/pytest -n 2 --gpu $(addprefix tests/test_,gpu.py tasks.py lean_loop.py lean_resume.py logged_values.py resume.py) $(ARGS)

lint: $(READY)  ## check format, style and types
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

format: $(READY)  ## format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

notebook: $(READY)  ## open the introduction in JupyterLab; it needs no network
	@$(BIN)/jupyter lab notebooks/introduction.ipynb $(ARGS)

# It keeps each event file open, of which a shell allows 1,024 at first.
tensorboard: $(READY)  ## start the dashboard over all runs, and print its address
	@ulimit -n $$(ulimit -Hn); $(BIN)/tensorboard --logdir runs --samples_per_plugin images=0 $(ARGS)

golden: $(READY)  ## measure tests/golden/ anew, after a change that is meant to change numbers or configs
	@RENEW_GOLDEN=1 $(BIN)/pytest tests/test_golden.py $(ARGS)

lock: $(READY)  ## compile requirements.txt anew from pyproject.toml
	@$(BIN)/uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-annotate --upgrade \
		--group dev --custom-compile-command "make lock" pyproject.toml -o requirements.txt

accuracy: $(READY)  ## measure README's accuracies anew (five minutes)
	@PYTHONPATH=. $(BIN)/python benchmarks/accuracy.py

bench: $(READY)  ## measure speed and memory side by side with less (half an hour; ARGS="b c" are sections)
	@PYTHONPATH=. $(BIN)/python benchmarks/bench.py $(ARGS)

bench-sweep: $(READY)  ## measure sweeps: eight jobs in three ways, 10,000 runs in a table (ten minutes)
	@PYTHONPATH=. $(BIN)/python benchmarks/bench.py g h

dashboard-picture: $(READY)  ## train, and take README's pictures of the dashboard anew (needs Chromium)
	@PYTHONPATH=tests $(BIN)/python docs/pictures.py

reproduce: $(READY)  ## train a run again from its record and compare: make reproduce RUN=runs/...
	@PYTHONPATH=. $(BIN)/python tests/reproduce.py $(RUN)

soak: $(READY)  ## kill runs of six tasks 100 times and compare (ten minutes; ARGS=30 for 30 kills)
	@PYTHONPATH=. $(BIN)/python tests/soak.py $(ARGS)

schemas: $(READY)  ## write schemas/*.json anew, by which editors check and complete conf/
	@$(BIN)/python schemas/make.py

rename:  ## make the template yours: make rename NAME=my_project
	@echo "$(NAME)" | grep -Eqx '[a-z][a-z0-9_]*' || \
		{ echo "NAME=$(NAME): give a package name of small letters, digits and _, as in make rename NAME=my_project" >&2; exit 1; }
	@! $(PYTHON) -c "import $(NAME)" 2>/dev/null || \
		{ echo "NAME=$(NAME): Python has a module of that name already, give another" >&2; exit 1; }
	@! { grep -rqw "$(NAME)" train.py predict.py src --include=*.py || test -e "$(NAME)" -o -e "$(NAME).py" || \
		grep -qi '^$(NAME)==' requirements.txt || $(PYTHON) -c "import keyword; assert '$(NAME)' in keyword.kwlist" 2>/dev/null; } || \
		{ echo "NAME=$(NAME): the project or Python has another use for that word, give another" >&2; exit 1; }
	mv src/$(PACKAGE) src/$(NAME)
	perl -pi -e 's/^\{\}$$//' conf/renamed.yaml && echo "$(PACKAGE): $(NAME)" >> conf/renamed.yaml
	grep -rlIw $(PACKAGE) . --exclude-dir=.git --exclude-dir=.venv --exclude-dir=runs | xargs perl -pi -e \
		's{(?<!/)\b$(PACKAGE)(?=[./][a-z_])|(?<=src/)$(PACKAGE)\b|(?<=from )$(PACKAGE)\b|(?<=^name = ")$(PACKAGE)\b|(?<=^# )$(PACKAGE)\b|(?<=^title: )$(PACKAGE)\b|(?<=^PACKAGE := )$(PACKAGE)\b}{$(NAME)}g'
	rm -rf src/*.egg-info .venv/ready

update:  ## merge what the template has changed since: make update FROM=<a clone of it, or its address>
	@.template/update "$(FROM)"
