"""What `patch` makes of models as people have them: a copy that is one, the original left alone, or words."""

from __future__ import annotations

import functools

import pytest
import torch
from test_patch import everything, unchanged
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from toy import generator

import metarobust
from metarobust.fitting import split
from metarobust.learned.mlp import FeatureMLP

X = torch.rand(40, 1, 4, 4, generator=generator())


def network():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8, momentum=None), nn.ReLU(), nn.Linear(8, 4))
    model(X)
    return model


Y = network().eval()(X).argmax(1)  # which it knows, and 4 to 15 of each of 4 classes


def patched(model, images=X, lr=0.05, **more):
    how = {"optimizer": FeatureMLP(lr=lr), "steps": 3, "label": None, "max_clean_drop": 1.0, "measure": 0} | more
    return metarobust.patch(model, images, Y, **how)


@pytest.fixture(scope="module")
def plain():
    """The logits of the patched network: what every other way to hold the same network has to come to."""
    return patched(network())[0].eval()(X)


class Wrapped(nn.Module):
    """Keeps what its last pass computed, and a state that is no tensor; `spoil` does to it what people do."""

    def __init__(self, spoil=lambda model: None):
        super().__init__()
        self.net, self.seen, self.steps = network(), {}, 0
        spoil(self)

    def forward(self, x):
        self.steps += self.net[2].training
        self.seen["hidden"] = [self.net[:3](x)]
        return self.net[3:](self.seen["hidden"][0])

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]


@pytest.mark.parametrize("lr", [0.05, 1e9])
def test_any_state_comes_along_and_is_undone_with_the_rest(lr, plain):
    model = Wrapped()
    expected = plain if lr < 1 else model.eval()(X)
    model.train().seen["hidden"] = [model.net[:2](X)]
    images = X.clone().requires_grad_()
    found, report = patched(model, images, lr=lr, max_clean_drop=0.5)
    assert images.grad is None
    assert (report.undone, found.steps) == ((False, 3) if lr < 1 else (True, 0))
    assert not model.steps
    torch.testing.assert_close(found.eval()(X), expected)


NORMS = {
    "weight_norm": weight_norm, "spectral_norm": spectral_norm,
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "new weight_norm": parametrizations.weight_norm, "new spectral_norm": parametrizations.spectral_norm,
}  # fmt: skip


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_a_weight_that_is_computed_from_others_moves_with_them(norm):
    model = network()
    norm(model[1])
    model(X)
    before = everything(model)
    moved = dict(patched(model)[0].named_parameters())
    assert unchanged(before, everything(model))
    assert all(not torch.equal(p, moved[name]) for name, p in model.named_parameters())


def set_forward(wrap, module=lambda model: model):
    def spoil(model):
        module(model).forward = wrap(module(model).forward)

    return lambda: Wrapped(spoil)


def hooked(model):
    held = model.net[4]
    model.net[3].register_forward_hook(lambda module, given, out: out + held(out).mean())


compiled = functools.partial(torch.compile, backend="eager")
STILL = {
    "compiled forward": set_forward(compiled),
    "compiled layer": set_forward(compiled, lambda model: model.net[1]),
    "lambda": set_forward(lambda forward: lambda x: forward(x)),
    "decorator": set_forward(lambda forward: functools.wraps(forward)(lambda x: 2 * forward(x))),
    "hook": lambda: Wrapped(hooked),
}
WHOLE = {
    "compiled": lambda: compiled(network()),
    "DataParallel": lambda: nn.DataParallel(network()),
}


@pytest.mark.parametrize("make", [*STILL.values(), *WHOLE.values()], ids=[*STILL, *WHOLE])
def test_a_copy_runs_itself_and_not_the_original_or_is_refused(make, plain):
    model = make()
    next(model.parameters()).grad = torch.ones(8, 16)
    before = everything(model)
    if make in WHOLE.values():
        torch.testing.assert_close(patched(model)[0].eval()(X), plain)
    else:
        with pytest.raises(metarobust.errors.InputError, match="still runs the original: a function is set on it"):
            patched(model)
    assert unchanged(before, everything(model))


def test_weights_that_change_in_one_autocast_region_are_the_ones_that_are_measured():
    model = network().eval()
    test = split(Y, 0.2, generator())[1]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model(X)
        found, report = patched(model, lr=30.0, max_clean_drop=0.05)
        assert report.undone
        assert torch.equal(found(X), model(X))
        found, report = patched(model, lr=30.0)
        assert report.tried.clean == float((found(X[test]).argmax(1) == Y[test]).double().mean())


@pytest.mark.parametrize("around", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")])
@pytest.mark.parametrize("rule", ["features", "train-digits-steering", "patch"])
@pytest.mark.filterwarnings("ignore:.* learned on no network")
def test_the_mode_that_a_program_is_in_changes_nothing(around, rule):
    how = {"optimizer": FeatureMLP() if rule == "features" else rule}
    expected, report = patched(network(), **how)
    with torch.inference_mode():
        images = X.clone()  # an inference tensor
    model = network()
    with around():
        found, again = patched(model, images, **how)
    assert (report.before, report.tried) == (again.before, again.tried)
    assert all(torch.equal(p, q) for p, q in zip(expected.parameters(), found.parameters(), strict=True))
    F.cross_entropy(found(X), Y).backward()
