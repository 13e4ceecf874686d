"""MetaOptimizer in the loops that people have: schedulers; gradients scaled and accumulated; Lightning and Fabric."""

from __future__ import annotations

import pytest
import torch
from test_optim import batch, make, network, train, values
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
        factors += scheduler.get_last_lr()
        for old, p, q in zip(start, plain.parameters(), scheduled.parameters(), strict=True):
            torch.testing.assert_close(q.detach() - old, factors[-1] * (p.detach() - old), rtol=1e-4, atol=1e-6)
        scheduled.load_state_dict(plain.state_dict())
        scheduler.step()
    assert factors[0] == 1
    assert len(set(factors)) > 2


def scaled(model, optimizer):
    """A scaler undoes its factor before the step, and leaves out a step whose gradients are not finite."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in (0, 1, None, 2, 3):
        optimizer.zero_grad()
        scaler.scale(optimizer.loss(model, *batch(step or 0))).backward()
        if step is None:
            next(model.parameters()).grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()


def accumulated(model, optimizer):
    for images, labels in map(batch, range(4)):
        optimizer.zero_grad()
        for part in (slice(4), slice(4, 8)):
            (optimizer.loss(model, images[part], labels[part]) / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e3)
        optimizer.step()


def by_lightning(model, optimizer):
    lightning = pytest.importorskip("lightning", reason="pip install -e '.[peers]'", exc_type=ImportError)

    class Module(lightning.LightningModule):
        def training_step(self, both, number):
            return self.optimizers().loss(self.net, *both)

        def configure_optimizers(self):
            return [optimizer], [LambdaLR(optimizer, lambda step: 1.0)]

    module, monitor = Module(), lightning.pytorch.callbacks.LearningRateMonitor("step")
    module.net, batches = model, torch.utils.data.DataLoader(list(map(batch, range(4))), batch_size=None)
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    quiet["logger"] = lightning.pytorch.loggers.CSVLogger(".")
    trainer = lightning.Trainer(callbacks=[monitor], max_epochs=1, accelerator="cpu", gradient_clip_val=1e3, **quiet)
    trainer.fit(module, batches)


def by_fabric(model, optimizer):
    lightning = pytest.importorskip("lightning", reason="pip install -e '.[peers]'", exc_type=ImportError)
    fabric = lightning.Fabric(accelerator="cpu")
    wrapped, optimizer = fabric.setup(model, optimizer)
    for images, labels in map(batch, range(4)):
        optimizer.zero_grad()
        fabric.backward(optimizer.loss(wrapped, images, labels))
        optimizer.step()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loop", [scaled, accumulated, by_lightning, by_fabric])
def test_a_loop_in_another_form_takes_the_same_steps(loop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, expected = network(), network()
    loop(found, MetaOptimizer(found.parameters(), make(), total_steps=4))
    train(expected, MetaOptimizer(expected.parameters(), make(), total_steps=4), range(4))
    torch.testing.assert_close(values(found), values(expected), rtol=1e-5, atol=1e-6)
