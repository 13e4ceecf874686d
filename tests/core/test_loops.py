"""MetaOptimizer in the loops that people have: schedulers; gradients scaled, clipped, accumulated; Lightning."""

from __future__ import annotations

import pytest
import torch
from test_optim import batch, make, network, same, train, values
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from torch.optim.swa_utils import SWALR

from metarobust.optim import MetaOptimizer

STEPS = 6
SCHEDULERS = {
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, STEPS),
    "SWA": lambda optimizer: SWALR(optimizer, swa_lr=0.25, anneal_epochs=3),
}


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_scheduler_sets_a_factor_on_the_learned_step(schedule):
    """Both take all steps from the same place, with the same gradients, and so with the same averages."""
    plain, scheduled = network(), network()
    ours, theirs = (MetaOptimizer(model.parameters(), make(), total_steps=STEPS) for model in (plain, scheduled))
    scheduler, factors = schedule(theirs), []
    for step in range(STEPS):
        start = values(plain)
        for p, q in zip(plain.parameters(), scheduled.parameters(), strict=True):
            p.grad = q.grad = torch.cos(p.detach() + step)
        ours.step()
        theirs.step()
        (factor,) = scheduler.get_last_lr()
        for old, p, q in zip(start, plain.parameters(), scheduled.parameters(), strict=True):
            torch.testing.assert_close(q.detach() - old, factor * (p.detach() - old), rtol=1e-4, atol=1e-6)
        scheduled.load_state_dict(plain.state_dict())
        factors.append(factor)
        scheduler.step()
    assert factors[0] == 1
    assert len(set(factors)) > 2


def scaled(model, optimizer):
    """With a scaler, which undoes its factor before the step, and leaves one out whose gradients are not finite."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in (0, 1, None, 2, 3):
        images, labels = batch(step or 0)
        optimizer.zero_grad()
        scaler.scale(optimizer.loss(model, images, labels)).backward()
        if step is None:
            next(model.parameters()).grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()


def accumulated(model, optimizer):
    for step in range(4):
        images, labels = batch(step)
        optimizer.zero_grad()
        for part in (slice(4), slice(4, 8)):
            (optimizer.loss(model, images[part], labels[part]) / 2).backward()
        optimizer.step()


def with_closure(model, optimizer):
    for step in range(4):
        images, labels = batch(step)

        def closure(images=images, labels=labels):
            optimizer.zero_grad()
            loss = optimizer.loss(model, images, labels)
            loss.backward()
            return loss

        assert optimizer.step(closure).isfinite()


@pytest.mark.parametrize("loop", [scaled, accumulated, with_closure])
def test_a_loop_in_another_form_takes_the_same_steps(loop):
    found, expected = network(), network()
    loop(found, MetaOptimizer(found.parameters(), make(), total_steps=4))
    train(expected, MetaOptimizer(expected.parameters(), make(), total_steps=4), range(4))
    for p, q in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("by", ["Lightning", "Fabric"])
def test_lightning_takes_the_steps_of_a_plain_loop(by, tmp_path):
    lightning = pytest.importorskip("lightning", reason="pip install lightning", exc_type=ImportError)
    batches = [batch(step) for step in range(4)]
    expected = network()
    optimizer = MetaOptimizer(expected.parameters(), make(), total_steps=4)
    scheduler = SCHEDULERS["lambda"](optimizer)
    for images, labels in batches:
        optimizer.zero_grad()
        optimizer.loss(expected, images, labels).backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 0.1)
        optimizer.step()
        scheduler.step()

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, both, number):
            return self.optimizers().loss(self.net, *both)

        def configure_optimizers(self):
            optimizer = MetaOptimizer(self.net.parameters(), make(), total_steps=4)
            return [optimizer], [{"scheduler": SCHEDULERS["lambda"](optimizer), "interval": "step"}]

    if by == "Lightning":
        module, monitor = Module(), lightning.pytorch.callbacks.LearningRateMonitor("step")
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        logger = lightning.pytorch.loggers.CSVLogger(tmp_path)
        how = {"max_epochs": 1, "accelerator": "cpu", "gradient_clip_val": 0.1, "log_every_n_steps": 1, **quiet}
        lightning.Trainer(callbacks=[monitor], logger=logger, **how).fit(
            module, torch.utils.data.DataLoader(batches, batch_size=None)
        )
        found = module.net
    else:
        found, fabric = network(), lightning.Fabric(accelerator="cpu")
        wrapped, optimizer = fabric.setup(found, MetaOptimizer(found.parameters(), make(), total_steps=4))
        scheduler = SCHEDULERS["lambda"](optimizer)
        for images, labels in batches:
            optimizer.zero_grad()
            fabric.backward(optimizer.loss(wrapped, images, labels))
            fabric.clip_gradients(wrapped, optimizer, max_norm=0.1)
            optimizer.step()
            scheduler.step()
    assert same(values(found), values(expected))
