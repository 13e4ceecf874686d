"""Runs the complete experiments and reads their results.

experiments.py   the experiments that `metarobust run` knows, by name
running.py       runs one of them, or all, into a folder
engine.py        gives its units of work to one process, several, or a Dask cluster
run_folder.py    what a run leaves: manifest, units, checkpoints, results.csv
spec.py          what a comparison is made of; catalogue.py  the comparisons, and their numbers at each scale
results.py       reads the results of finished runs
"""
