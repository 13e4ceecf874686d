# Commands for readers and developers. Each one makes .venv first where it is missing.
.DEFAULT_GOAL := help
.PHONY: help setup book check test print slides notebooks reference results assignment handout course address clean

python := .venv/bin/python

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

setup: ## Make .venv with the pinned environment (once)
	@.ci/setup

book: setup ## Run the notebooks that changed and render the book to _build/html
	@$(python) .ci/book.py
	@$(python) -m metarobust headline

check: setup ## Lint, types and the tests of the core: two minutes
	@.ci/test check

test: setup ## Every check: the above, all other tests, notebooks, a warning-free book and its pages
	@.ci/test

print: setup ## Render the book with the outputs it has, as one page, as an EPUB and, with Chromium, as a PDF
	@$(python) .ci/book.py _build/print
	@$(python) .ci/print.py _build/print/_build/html _build/learning-from-mistakes.pdf

slides: setup ## Write a deck of slides for each part, out of the figures of its chapters, to _build/slides
	@$(python) .ci/book.py _build/print
	@$(python) .ci/slides.py _build/print/_build/html _build/slides

notebooks: setup ## Run the notebooks again and keep their new outputs (IN=notebooks/assignments for the masters alone)
	@$(python) .ci/notebooks.py $(or $(IN),notebooks notebooks/assignments)

reference: setup ## Run the examples of the reference pages and keep what they print and draw
	@$(python) .ci/reference.py

results: setup ## Write what the recorded results say into README, notebooks and the headline figure
	@$(python) .ci/results.py

assignment: setup ## Cut an assignment for students: make assignment N=3 (SEED=1234 for hidden tests of your own)
	@$(python) .ci/assignment.py $(N) $(SEED)

handout: setup ## The students' notebooks alone, for the repository of a course: make handout URL=https://github.com/OWNER/NAME
	@$(python) .ci/assignment.py "$(URL)"

course: setup ## Write the tables of the instructor's guide: times, and wrong answers against checks
	@$(python) .ci/course.py

address: setup ## Write a new public address everywhere: make address URL=https://github.com/OWNER/NAME
	@$(python) .ci/address.py "$(URL)"

clean: ## Remove what was built, but not .venv
	rm -rf _build .pytest_cache .ruff_cache .import_linter_cache .hypothesis
