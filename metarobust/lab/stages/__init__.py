"""The stages of a comparison, one after the other: `meta_train`, `tune`, `evaluate`. Each is cut into units of work.

A unit's function is given a `Worker` and the number of a part; what the units of a part share is its `Context`.
"""
