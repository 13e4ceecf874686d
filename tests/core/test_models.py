"""Layout, networks and Predictor: one vector and the named tensors are the same numbers, T models are T models."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn
from torch.func import functional_call
from toy import generator

from metarobust import models
from metarobust.errors import InputError
from metarobust.models import ACTIVATIONS, MADRY, Predictor, build, fresh
from metarobust.params import ParamSpec

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
KINDS = ["mlp-20", "mlp-6-5-4", "cnn-4", "cnn-4-6", "gncnn-4-6", "resnet-4-1", "resnet-8", "resnet-12-2"]
SOME = ["mlp-5-4-tanh", "cnn-3-4-relu", "resnet-4-2-relu", MADRY]


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_a_vector_is_split_and_joined_without_loss(name, lead):
    model = build(name, (1, 8, 8), 3)
    param_spec = ParamSpec.of(model)
    flat = torch.randn(*lead, param_spec.size)
    tensors = param_spec.split(flat)
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert {n: tuple(t.shape) for n, t in tensors.items()} == {n: (*lead, *s) for n, s in shapes.items()}
    assert torch.equal(param_spec.flatten(tensors), flat)
    tensors[param_spec.names[0]].mul_(0)
    assert bool((flat[..., : param_spec.sizes[0]] == 0).all())  # split gives views


def test_layers_fans_and_spread_by_hand():
    param_spec = ParamSpec.of(build("cnn-4-relu", (3, 8, 8), 10))
    assert param_spec.shapes == ((4, 3, 3, 3), (4,), (10, 64), (10,))
    assert param_spec.sizes == [108, 4, 640, 10]
    assert param_spec.size == 762
    assert param_spec.layers == [0, 0, 1, 1]
    assert param_spec.fans == [(27, 36), (27, 36), (64, 10), (64, 10)]
    spread = param_spec.broadcast(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    assert [row.unique_consecutive().tolist() for row in spread] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert (spread[0] == 3).sum() == 640
    # Scales and shifts of a normalisation belong to the layer before them, and take its fans.
    norms = ParamSpec.of(build("resnet-4-relu", (1, 8, 8), 2))
    at = norms.names.index("2.body.1.weight")
    assert (norms.layers[at], norms.fans[at]) == (norms.layers[at - 1], norms.fans[at - 2])
    assert norms.layers[-1] == len([s for s in norms.shapes if len(s) >= 2]) - 1


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("each", [0, 1, 3, 32])
def test_many_models_predict_as_each_alone(name, each):
    model = build(name, (1, 8, 8), 3).double()
    param_spec = ParamSpec.of(model)
    params = fresh(model, 3, generator()).double()
    images = torch.rand(3 * each, 1, 8, 8, dtype=torch.float64)
    together = Predictor(model, param_spec, params)(images)
    alone = [
        functional_call(model, param_spec.split(p), (x,))
        for p, x in zip(params, images.view(3, each, 1, 8, 8), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))
    assert together.shape == (3 * each, 3)


@pytest.mark.parametrize(
    ("name", "each", "calls"), [("cnn-9-4-tanh", 32, 3), ("cnn-9-4-tanh", 31, 1), ("cnn-8-4-tanh", 32, 1)]
)
def test_wide_convolutions_go_one_model_at_a_time_with_the_same_gradients(name, each, calls, monkeypatch):
    model = build(name, (1, 8, 8), 3).double()
    param_spec, seen = ParamSpec.of(model), []
    monkeypatch.setattr(models, "functional_call", lambda *args: seen.append(1) or functional_call(*args))
    images = torch.rand(3 * each, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    params = fresh(model, 3, generator()).double().requires_grad_()

    def slopes(logits):
        """Of a loss with a penalty on its gradient, as plain rules and meta-training take them."""
        (inside,) = torch.autograd.grad(logits.square().sum(), images, create_graph=True)
        return torch.autograd.grad(inside.square().sum(), params)[0]

    found = slopes(Predictor(model, param_spec, params)(images))
    assert len(seen) == calls
    rows = zip(params, images.split(each), strict=True)
    torch.testing.assert_close(found, slopes(torch.cat([Predictor(model, param_spec, p)(x) for p, x in rows])))


def test_images_that_cannot_be_shared_out_are_refused():
    model = build("mlp-4-tanh", (1, 8, 8), 3)
    with pytest.raises(InputError, match=r"7 images.*3 models.*multiple of 3"):
        Predictor(model, ParamSpec.of(model), fresh(model, 3, generator()))(torch.rand(7, 1, 8, 8))


@pytest.mark.parametrize("name", SOME)
def test_fresh_parameters_are_distributed_as_pytorchs(name):
    models = [build(name, (1, 8, 8), 3) for _ in range(60)]
    param_spec = ParamSpec.of(models[0])
    theirs = param_spec.split(torch.stack([nn.utils.parameters_to_vector(m.parameters()).detach() for m in models]))
    ours = param_spec.split(fresh(models[0], 60, generator()))
    for tensor in param_spec.names:
        a, b = ours[tensor].flatten(), theirs[tensor].flatten()
        if bool((b == b[0]).all()):  # of a normalisation
            assert torch.equal(a, b), tensor
        else:
            assert ks_2samp(a[:20_000], b[:20_000]).pvalue > 1e-4, tensor
            assert float(a.abs().max()) == pytest.approx(float(b.abs().max()), rel=0.1)


def test_fresh_parameters_depend_on_the_generator_alone():
    model = build("cnn-3-relu", (1, 8, 8), 3)
    torch.manual_seed(0)
    first = fresh(model, 2, generator(5))
    torch.manual_seed(1)
    for p in model.parameters():
        p.data.zero_()
    before = torch.get_rng_state()
    assert torch.equal(fresh(model, 2, generator(5)), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(fresh(model, 2, generator(6)), first)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_builds_for_every_image(kind, activation):
    for shape in SHAPES:
        model = build(f"{kind}-{activation}", shape, 7)
        assert model(torch.rand(2, *shape)).shape == (2, 7)
        assert any(isinstance(module, ACTIVATIONS[activation]) for module in model.modules())
        assert not list(model.buffers())  # a model is its parameters: nothing runs beside them


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("mlp-20-sigmoid", (1, 28, 28), 784 * 20 + 20 + 20 * 10 + 10),
        ("mlp-40-30-relu", (1, 8, 8), 64 * 40 + 40 + 40 * 30 + 30 + 30 * 10 + 10),
        ("cnn-8-16-relu", (1, 28, 28), 8 * 9 + 8 + 16 * 8 * 9 + 16 + 16 * 7 * 7 * 10 + 10),
    ],
)
def test_a_name_means_these_layers(name, shape, parameters):
    assert ParamSpec.of(build(name, shape, 10)).size == parameters


def test_madrys_network_is_that_of_the_released_code():
    """Layer by layer, against PyTorch: two convolutions of 5x5 with SAME padding, ReLU, pooling; 1024; the logits."""
    model = build(MADRY, (1, 28, 28), 10)
    weights = list(model.parameters())
    x = images = torch.rand(2, 1, 28, 28)
    for kernel, bias in zip(weights[:4:2], weights[1:4:2], strict=True):
        x = nn.functional.max_pool2d(nn.functional.conv2d(x, kernel, bias, padding=2).relu(), 2)
    x = (x.flatten(1) @ weights[4].T + weights[5]).relu() @ weights[6].T + weights[7]
    torch.testing.assert_close(model(images), x)
    for shape in [(3, 7, 5), (1, 1, 1), *SHAPES]:
        assert build(MADRY, shape, 7)(torch.rand(2, *shape)).shape == (2, 7)


BAD = {
    "transformer-20-relu": r"madry-cnn.*'transformer'.*mlp, cnn, gncnn, resnet",
    "mpl-20-relu": r"'mpl'.*did you mean 'mlp'",
    "mlp": r"activation|widths",
    "": r"mlp-20-sigmoid.*''",
    "mlp-20-swish": r"'swish'.*sigmoid",
    "mlp-0-relu": r"'mlp-0-relu'.*above 0",
    "mlp--3-relu": r"'mlp--3-relu'.*above 0",
    "mlp-²-relu": r"'mlp-²-relu'.*above 0",
    "madry": r"madry-cnn.*'madry'",
    "resnet-8-1-3-relu": r"'resnet-8-1-3-relu'.*width.*blocks",
}


@pytest.mark.parametrize(("name", "message"), BAD.items())
def test_a_bad_name_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        build(name, (1, 8, 8), 10)
