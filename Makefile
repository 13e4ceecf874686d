# Commands for readers and developers. Each one makes .venv first where it is missing.
.DEFAULT_GOAL := help
.PHONY: help setup book test print notebooks reference results assignment course address clean

python := .venv/bin/python
jupyter-book := $(python) -c "from jupyter_book.cli.main import main; main()"
# What a book is made of, copied so that a run leaves the work tree as it was.
pages := book notebooks _config.yml _toc.yml
copy = rm -rf $(1) && mkdir -p $(1) && cp -R $(pages) $(1)

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

setup: ## Make .venv with the pinned environment (once)
	@.ci/setup

book: setup ## Run the notebooks and render the book to _build/html
	@rm -rf _build/html _build/runs
	@$(call copy,_build/pages)
	@$(python) .ci/execute.py notebooks _build/pages/notebooks
	@$(jupyter-book) build --all --path-output . _build/pages
	@$(python) -c "from pathlib import Path; print('The book:', Path('_build/html/index.html').resolve().as_uri())"
	@$(python) -m metarobust headline

test: setup ## Lint, unit tests, notebooks, warning-free build and checks of the pages
	@.ci/test

print: setup ## Render the book with the outputs it has, as one page and, with Chromium, as a PDF
	@$(call copy,_build/pages)
	@$(jupyter-book) build -q --path-output . _build/pages
	@$(python) .ci/print.py _build/html _build/learning-from-mistakes.pdf

notebooks: setup ## Run the notebooks again and keep their new outputs (IN=notebooks/assignments for the masters alone)
	@set -e; for folder in $(or $(IN),notebooks notebooks/assignments); do \
		rm -rf _build/fresh && mkdir -p _build/fresh; \
		$(python) .ci/execute.py $$folder _build/fresh; \
		$(python) .ci/clean_notebook.py _build/fresh $$folder; done

reference: setup ## Run the examples of the reference pages and keep what they print and draw
	@$(python) .ci/reference.py

results: setup ## Write what the recorded results say into README, notebooks and the headline figure
	@$(python) .ci/results.py

assignment: setup ## Cut an assignment for students: make assignment N=3 (SEED=1234 for hidden tests of your own)
	@$(python) .ci/assignment.py $(N) $(SEED)

course: setup ## Write the tables of the instructor's guide: times, and wrong answers against checks
	@$(python) .ci/course.py

address: setup ## Write a new public address everywhere: make address URL=https://github.com/OWNER/NAME
	@$(python) .ci/address.py "$(URL)"

clean: ## Remove what was built, but not .venv
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
