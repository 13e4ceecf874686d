"""The optimizers that come with the package: whole, of the recorded runs, and made anew by a command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from toy import scatter

from metarobust import pretrained
from metarobust.cli import main
from metarobust.errors import InputError
from metarobust.lab import cards
from metarobust.lab.results import LEARNED, PLAIN, RECORDED, accuracy, interval, recorded, select
from metarobust.lab.run_folder import Units
from metarobust.learned import make
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import pack
from metarobust.storage import load_tensors, read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    "patch", "patch-digits", "patch-digits-joint", "patch-fashion-mnist", "patch-mnist", "patch-mnist-joint", "train",
    "train-digits", "train-digits-steering", "train-mnist",
)  # fmt: skip
each = pytest.mark.parametrize("name", NAMES)


@each
def test_weights_are_those_of_the_recorded_run(name):
    optimizer, card = pretrained.load(name), cards.card(name)
    untrained = make(card.get("kind", "features")).state_dict()
    moved = [key for key, value in optimizer.state_dict().items() if not torch.equal(value, untrained[key])]
    assert {"net.4.weight", "levers", "steering.levers", "knots"} & set(moved), "what meta-training begins with"
    manifest, _ = recorded(card["run"])
    for key in ("spec_sha256", "data_sha256", "command", "code"):
        assert card["made_by"][key] == manifest.get("learned", manifest)[key]
    part = next(part for part in manifest["spec"]["parts"] if part["name"] == card["part"])
    # The run of training on MNIST is older: it had one rule, and no list of them.
    older = {"name": "learned", "kind": "features", "source": None, "plan": part.get("plan")}
    rules = [*part["rules"], *part["uses"]] if "rules" in part else [older]
    rule = next(rule for rule in rules if rule["name"] == card.get("rule", "learned"))
    assert card["meta_trained_on"]["plan"] == rule["plan"]
    assert card["meta_seed"] == manifest["spec"]["meta_seeds"][0], "the first, not the best"
    own = "" if rule["kind"] == "features" else f"-{rule['kind']}"
    goal = "patch" if card["part"].startswith("patch") else "train"
    assert card["meta_trained_on"]["dataset"] == (rule["source"] or manifest["spec"]["dataset"])
    assert name == (goal if rule.get("beside") else f"{goal}-{card['meta_trained_on']['dataset']}{own}")
    assert card["licence"] == "MIT"


@each
def test_what_a_card_says_of_results_is_in_the_recorded_run(name):
    card = cards.card(name)
    _, frame = recorded(card["run"])
    assert {*card["works"], *card["fails"]} == set(card["results"])
    assert not set(card["works"]) & set(card["fails"])
    own = select(frame, method=card.get("rule", LEARNED), meta_seed=card["meta_seed"])
    for model, shown in card["results"].items():
        mine = select(own, part=card["part"], model=model)
        clean, robust = (100 * accuracy(mine, metric).mean() for metric in ("clean", "robust"))
        assert shown["this"].startswith(f"{clean:.1f}/{robust:.1f} ")
    for part, networks in {card["part"]: card, **card.get("elsewhere", {})}.items():
        for model in (*networks["works"], *networks["fails"]):
            rivals = accuracy(select(frame, part=part, model=model, learned=0, tier=PLAIN))
            robust = {method: interval(rivals[part, model, method]).mean for method in rivals.index.unique("method")}
            mine = interval(accuracy(select(own, part=part, model=model))).mean
            assert set(networks["fails"].get(model, ())) == {m for m, value in robust.items() if value >= mine}


def test_a_card_says_how_it_did_on_every_data_set_of_its_run():
    card = cards.card("patch-fashion-mnist")
    assert {"patch, digits", "patch, mnist", "patch, cifar10-jpeg"} == set(card["elsewhere"])
    assert card["untried"][0] == "images other than those of cifar10-jpeg, digits, mnist, fashion-mnist"
    assert card["meta_trained_on"]["attack"]["eps"] == pytest.approx(0.12), "of clothes, not of photographs"


@pytest.fixture
def run(tmp_path):
    """The recorded run on digits as a run's folder, with a checkpoint of made-up weights."""
    folder = tmp_path / "run"
    shutil.copytree(RECORDED / "patch-digits-small", folder)
    optimizer = scatter(FeatureMLP())
    log = [{"meta_loss": 2.0}, {"meta_loss": 1.0}]
    tensors = pack(dict(optimizer.named_parameters()), torch.optim.Adam(optimizer.parameters()))
    Units(folder).save("patch.learned.0", tensors, {"episode": 240, "log": log})
    return folder, optimizer


def test_export_makes_such_a_file_out_of_a_run(run, tmp_path, monkeypatch, capsys):
    folder, optimizer = run
    assert main(["export", str(folder), "patch", "--out", str(tmp_path / "made")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'made' / 'patch-digits.safetensors'}\n"
    card = (tmp_path / "made" / "patch-digits.json").read_bytes()
    cards.export(folder, "patch", tmp_path / "again")
    assert (tmp_path / "again" / "patch-digits.json").read_bytes() == card
    shipped = cards.card("patch-digits")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "made")
    made = cards.card("patch-digits")
    made["meta_trained_on"]["meta_loss"] = shipped["meta_trained_on"]["meta_loss"]
    made["weights_sha256"] = shipped["weights_sha256"]  # of the file, whose header may be laid out otherwise
    assert json.dumps(made) == json.dumps(shipped)
    for p, q in zip(pretrained.load("patch-digits").parameters(), optimizer.parameters(), strict=True):
        assert torch.equal(p, q)


def test_export_of_a_rule_that_learned_on_another_data_set(tmp_path):
    """It is used in a part of its own, and its checkpoint is named after the part that it was learned for."""
    folder, rule = tmp_path / "run", "learned on fashion-mnist"
    shutil.copytree(RECORDED / "transfer-data-folder-cifar10-jpeg-small", folder)
    theta, _ = load_tensors(pretrained.FOLDER / "patch-fashion-mnist.safetensors")
    log = [{"meta_loss": loss} for loss in cards.card("patch-fashion-mnist")["meta_trained_on"]["meta_loss"]]
    tensors = {f"theta.{name}": value for name, value in theta.items()}
    Units(folder).save("patch-cifar10-jpeg.learned-on-fashion-mnist.0", tensors, {"episode": 120, "log": log})
    path = cards.export(folder, "patch, fashion-mnist", tmp_path, rule=rule)
    assert path == tmp_path / "patch-fashion-mnist.safetensors"
    for made in (path, path.with_suffix(".json")):
        assert made.read_bytes() == (pretrained.FOLDER / made.name).read_bytes()
    elsewhere = read_json(cards.export(folder, "patch, mnist", tmp_path, rule=rule).with_suffix(".json"))
    assert (elsewhere["part"], elsewhere["meta_trained_on"]["dataset"]) == ("patch, mnist", "fashion-mnist")


def test_export_of_what_is_not_there(run, tmp_path, capsys):
    folder, _ = run
    with pytest.raises(InputError, match=r"patch\.learned-joint\.0\.safetensors is missing"):
        cards.export(folder, "patch", tmp_path, rule="learned, joint")
    with pytest.raises(InputError, match="unknown learned rule of the run 'joint'"):
        cards.export(folder, "patch", tmp_path, rule="joint")
    with pytest.raises(InputError, match="did you mean 'patch'"):
        cards.export(folder, "patches", tmp_path)
    units = Units(folder)
    tensors, about = units.restore("patch.learned.0")
    units.save("patch.learned.0", tensors, about | {"episode": 20})
    with pytest.raises(InputError, match="not the end of this run's meta-training"):
        cards.export(folder, "patch", tmp_path)
    units.manifest["spec_sha256"] = "another"
    units.save("patch.learned.0", tensors, about)
    with pytest.raises(InputError, match="of another run"):
        cards.export(folder, "patch", tmp_path)
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"spec": manifest["spec"] | {"experiment": "anchor"}})
    assert main(["export", str(folder), "patch"]) == 2
    assert "anchor, which learns no optimizer" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))


def test_list_shows_each_in_a_line(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name, summary in pretrained.summaries().items():
        assert f"  {name:24}{summary}\n" in out
        assert len(summary) < 80
