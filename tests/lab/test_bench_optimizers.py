"""The bench of learned optimizers: every way does the same work, and the table says what the rows hold. No time is
looked at."""

from __future__ import annotations

import re
from statistics import median

import pytest
import torch
from torch import nn

from metarobust.lab.bench import libraries, optimizers
from metarobust.lab.bench.plain_lstm import PlainLSTM, plain, with_higher
from metarobust.lab.bench.tables import columns
from metarobust.learned import KINDS
from metarobust.learned.lstm import CoordinateLSTM
from metarobust.meta.estimators import Backprop
from metarobust.meta.replay import Replay

needs_higher = pytest.mark.skipif(
    libraries.installed("higher") is None, reason=f"higher is not installed: {libraries.INSTALL}"
)


@pytest.fixture(scope="module")
def rows():
    size = optimizers.QUICK
    return [*optimizers.meta_training(size), *optimizers.stepping(size, "cpu")]


@pytest.mark.parametrize("way", [plain, pytest.param(with_higher, marks=needs_higher)])
@pytest.mark.parametrize("network", ["mlp-2-sigmoid", "cnn-2-relu"])
def test_the_plain_lstm_and_higher_find_our_meta_gradient(way, network):
    where = optimizers.problem(network, tasks=3, truncation=5)
    optimizer = CoordinateLSTM(hidden=4, generator=torch.Generator().manual_seed(0))
    theirs = way(where, optimizer, 7)
    for estimator in (Backprop(), Replay()):
        ours = optimizers.ours(where, optimizer, estimator, 7)
        assert [g.shape for g in theirs] == [p.shape for p in optimizer.parameters()]
        assert optimizers.difference(theirs, ours) < 1e-4
        assert all(bool(g.any()) for g in ours)
        assert optimizers.difference(theirs, optimizers.ours(where, optimizer, estimator, 8)) > 1e-2, "other batches"


def test_the_plain_lstm_is_a_copy():
    optimizer = CoordinateLSTM(hidden=4)
    copied = PlainLSTM(optimizer)
    with torch.no_grad():
        optimizer.head.weight.add_(1)
    assert not torch.equal(copied.head.weight, optimizer.head.weight)
    assert list(copied.state_dict()) == list(optimizer.state_dict())


def test_difference_is_relative_to_each_tensor():
    ones = [torch.tensor([1.0, 2.0]), torch.tensor([100.0])]
    assert optimizers.difference(ones, ones) == 0
    assert optimizers.difference([torch.tensor([1.0, 2.5]), torch.tensor([110.0])], ones) == 0.25


def test_every_way_has_a_row_and_ratios_come_from_the_rows(rows):
    lstms = [optimizers.OURS, optimizers.GRAPH, optimizers.PLAIN]
    lstms += [optimizers.HIGHER] if libraries.installed("higher") else []
    meta = {row["way"]: row for row in rows if row["part"] == "meta-training"}
    assert list(meta) == [*lstms, *(kind for kind in KINDS if kind != "lstm")]
    network = optimizers.problem("mlp-2-sigmoid", 2, 2).tasks.params
    assert {row["work"] for row in meta.values()} == {network.numel() * 2}
    assert meta[optimizers.OURS]["ratio"] == 1
    assert all((row["difference"] is not None) == (way in lstms) for way, row in meta.items())
    assert all(row["difference"] < 1e-4 for way, row in meta.items() if way in lstms)
    step = {row["way"]: row for row in rows if row["part"] == "step"}
    assert list(step) == [optimizers.ADAM, optimizers.FUSED, optimizers.META, optimizers.SCALE]
    assert step[optimizers.ADAM]["ratio"] == 1
    scale = step[optimizers.SCALE]
    for way, row in step.items():
        moved = optimizers.MOVED[way] / optimizers.MOVED[optimizers.SCALE]
        assert row["share"] == pytest.approx(moved * scale["seconds"] / row["seconds"])
    assert set(rows[0]) == set(optimizers.COLUMNS)


def test_ratios_are_times_of_the_first_way():
    times = {"a": [1.0, 2.0, 4.0], "b": [3.0, 4.0, 20.0]}
    made = optimizers._rows("step", "cpu", "net", times, 60, "a", share={"a": 0.5, "b": 0.25})
    assert [row["ratio"] for row in made] == [1.0, 3.0]
    assert [row["seconds"] for row in made] == [median(seconds) for seconds in times.values()]
    assert [row["share"] for row in made] == [0.5, 0.25]
    assert "3.00" in columns(optimizers._step_lines(made))


def test_the_network_that_is_stepped_on_has_11_million_parameters():
    params = optimizers._resnet(64, "cpu")
    assert sum(p.numel() for p in params) == 11_689_512
    assert all(isinstance(p, nn.Parameter) and p.grad.shape == p.shape for p in params)
    assert sum(p.numel() for p in optimizers._resnet(2, "cpu")) < 20_000


def test_the_table_names_every_way(rows):
    manifest = {"versions": {"higher": None}, "device": {"name": "a machine"}, "threads": 1}
    text = optimizers.table(manifest, rows)
    for row in rows:
        assert re.search(rf"^{row['network'] if row['part'] != 'step' else 'cpu'} +{row['way']} +[\d,.]+ ", text, re.M)
    assert "higher is not installed: pip install" in text
    page = optimizers.markdown(manifest, rows).splitlines()
    assert sum(line.startswith("| --- |") for line in page) == 2
