"""Comparisons with other libraries that `metarobust bench` knows, by name."""

from metarobust.lab.bench.attacks import SPEED
from metarobust.lab.bench.optimizers import STEPS
from metarobust.lab.bench.peers import STRENGTH

BENCHES = {bench.name: bench for bench in (SPEED, STRENGTH, STEPS)}
