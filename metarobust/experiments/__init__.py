"""The experiments that `metarobust run` knows, by name."""

from metarobust.experiments import transfer

EXPERIMENTS = {transfer.NAME: transfer}
