"""Comparisons with other libraries that `metarobust bench` knows, by name.

A bench is a module with NAME, SUMMARY, `run(*, out, quick) -> str`, which prints nothing and returns what is to be
printed, and `markdown(manifest, rows) -> str` for the book.
"""

from metarobust.lab.bench import attacks, optimizers, peers

BENCHES = {attacks.NAME: attacks, peers.NAME: peers, optimizers.NAME: optimizers}
