"""What `patch` makes of models as people have them: the copy is a copy, the original is left alone, or words say why."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from toy import everything, generator, unchanged

import metarobust
from metarobust.attacks import counting
from metarobust.errors import InputError
from metarobust.fitting import split
from metarobust.learned.mlp import FeatureMLP

RULE = FeatureMLP(lr=0.05)
X = torch.rand(40, 1, 4, 4, generator=generator())
HOW = {"optimizer": RULE, "steps": 3, "label": None, "max_clean_drop": 1.0, "measure": 0.0}


def network():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8, momentum=None), nn.ReLU(), nn.Linear(8, 4))
    model(X)
    return model


Y = network().eval()(X).argmax(1)  # which it knows, and 4 to 15 of each of 4 classes


def patched(model, images=X, **more):
    return metarobust.patch(model, images, Y, **(HOW | more))


@pytest.fixture(scope="module")
def plain():
    """The logits of the patched network: what every other way to hold the same network has to come to."""
    return patched(network())[0].eval()(X)


class Wrapped(nn.Module):
    """A network with a method to wrap it in what people have; keeps what its last pass computed, in a list."""

    def __init__(self, spoil=lambda model: None):
        super().__init__()
        self.net, self.seen = network(), []
        spoil(self)

    def forward(self, x):
        self.seen[:] = [self.net[:3](x)]
        return self.net[3:](self.seen[0])


def test_a_kept_activation_is_no_obstacle(plain):
    model = Wrapped()
    model.eval()(X)
    found, _ = patched(model)
    torch.testing.assert_close(found.eval()(X), plain)
    assert found.seen[0] is not model.seen[0]


class Stateful(Wrapped):
    """With a state of its own that is no tensor, and a buffer that a state_dict leaves out."""

    def __init__(self):
        super().__init__()
        self.register_buffer("looks", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.looks += self.net[2].training
        return super().forward(x)

    def get_extra_state(self):
        return {"looks": int(self.looks)}

    def set_extra_state(self, state):
        self.looks.fill_(state["looks"])


@pytest.mark.parametrize("drop", [1.0, 0.0])
def test_any_state_comes_along_and_is_undone_with_the_rest(drop, plain):
    model = Stateful()
    rule = FeatureMLP(lr=0.05 if drop else 1e9)
    found, report = patched(model, optimizer=rule, max_clean_drop=drop)
    assert report.undone == (drop == 0)
    assert float(model.looks) == 0
    assert float(found.looks) == (0 if report.undone else 3)
    torch.testing.assert_close(found.eval()(X), model.eval()(X) if report.undone else plain)


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
    before, here = everything(model), model.eval()(X)
    model.train()
    found, _ = patched(model)
    assert unchanged(before, everything(model))
    moved = dict(found.named_parameters())
    assert all(not torch.equal(p, moved[name]) for name, p in model.named_parameters())
    assert not torch.allclose(found.eval()(X), here)


def on_instance(wrap):
    def spoil(model):
        model.forward = wrap(model.forward)

    return spoil


def hooked(model):
    held = model.net[4]
    model.net[3].register_forward_hook(lambda module, given, out: out + held(out).mean())


def layer(model):
    model.net[1].forward = torch.compile(model.net[1].forward, backend="eager")


STILL = {
    "compiled forward": on_instance(functools.partial(torch.compile, backend="eager")),
    "lambda": on_instance(lambda forward: lambda x: forward(x)),
    "decorator": on_instance(lambda forward: functools.wraps(forward)(lambda x: 2 * forward(x))),
    "hook": hooked,
    "one layer": layer,
}


@pytest.mark.parametrize("spoil", STILL.values(), ids=STILL)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_copy_that_still_runs_the_original_is_refused(spoil, frozen):
    model = Wrapped(spoil)
    model.net[2].requires_grad_(not frozen)
    model.net[2].weight.grad = torch.ones(8)
    before = everything(model)
    with pytest.raises(InputError, match="still runs the original: a function is set on it"):
        patched(model)
    assert unchanged(before, everything(model))


WHOLE = {
    "compiled": lambda: torch.compile(network(), backend="eager"),
    "bound method": lambda: Wrapped(lambda m: setattr(m, "forward", m.forward)),
    "partial": lambda: Wrapped(on_instance(functools.partial)),
    "DataParallel": lambda: nn.DataParallel(network()),
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_a_wrapper_that_is_copied_with_its_model_works(make, plain):
    model = make()
    before = everything(model)
    torch.testing.assert_close(patched(model)[0].eval()(X), plain)
    assert unchanged(before, everything(model))


class Averaged(nn.Module):
    """Answers with averaged weights in eval mode, as many a training code does: `eval()` puts them in place."""

    def __init__(self):
        super().__init__()
        self.net = network()
        self.average = {name: t.clone() for name, t in self.net.state_dict().items()}

    def train(self, mode=True):
        if not mode and self.training:
            self.net.load_state_dict(self.average)
        return super().train(mode)

    def forward(self, x):
        return self.net(x)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = network().requires_grad_(False), nn.Linear(3, 3)

    def forward(self, x):
        return self.net(x)


def locked():
    model = network()
    model.held = (number for number in range(3))
    return model


REFUSED = {
    "TorchScript": (lambda: torch.jit.trace(network().eval(), X), "the model is TorchScript"),
    "TorchScript inside": (lambda: nn.Sequential(torch.jit.trace(network().eval(), X)), "give the module that it was made"),
    "function": (lambda: lambda x: network()(x), "give an nn.Module"),
    "generator": (locked, "cannot be copied"),
    "unused head": (Unused, "no gradient reaches a parameter"),
    "detached": (lambda: nn.Sequential(network(), Detach()), "no gradient reaches a parameter"),
    "averages": (Averaged, r"own train\(\) or eval\(\) exchanges its weights"),
}


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
def test_what_cannot_be_patched_is_refused_in_words(make, says):
    with pytest.raises(InputError, match=says), counting() as attacked:
        patched(make(), measure=1.0 if says.startswith("no gradient") else 0.0)
    assert attacked.examples == 0 or make is Averaged


def test_weights_that_change_in_one_autocast_region_are_the_ones_that_are_measured():
    model = network()
    ruinous = FeatureMLP(lr=30.0)
    with torch.autocast("cpu", torch.bfloat16):
        model(X)
        found, report = patched(model, optimizer=ruinous, max_clean_drop=0.05)
        again, bold = patched(model, optimizer=ruinous)
    assert report.undone
    assert all(torch.equal(p, q) for p, q in zip(found.parameters(), model.parameters(), strict=True))
    test = split(Y, 0.2, generator())[1]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert bold.tried.clean == float((again.eval()(X[test]).argmax(1) == Y[test]).double().mean())


def default_type():
    torch.set_default_dtype(torch.bfloat16)


AROUND = {
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("rule", [RULE, "patch", "train-digits-steering"])
def test_the_mode_that_a_program_is_in_changes_nothing(around, rule):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected, report = patched(network(), optimizer=rule)
        model = network()
        with around():
            images = X.clone() if around is not AROUND["default device"] else X
            found, again = patched(model, images, optimizer=rule)
    assert report == again
    for p, q in zip(expected.parameters(), found.parameters(), strict=True):
        assert torch.equal(p, q)
    F.cross_entropy(found(X), Y).backward()


def test_images_that_want_a_gradient_get_none(plain):
    images = X.clone().requires_grad_()
    found, _ = patched(network(), images)
    torch.testing.assert_close(found.eval()(X), plain)
    assert images.grad is None
