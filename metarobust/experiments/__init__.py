"""The experiments that `metarobust run` knows, by name."""

from metarobust.experiments import anchor, transfer

EXPERIMENTS = {experiment.NAME: experiment for experiment in (transfer, anchor)}
