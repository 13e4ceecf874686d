"""metarobust: learned optimizers that learn from adversarial mistakes.

    patched, report = metarobust.patch(model, images, labels)             more robust, without an adversarial example
    print(metarobust.evaluate(patched, images, labels, eps=0.1))          clean and robust accuracy, and what is suspect
    trained, report = metarobust.train(model, images, labels)             a fresh one, robust from the start
    optimizer = metarobust.MetaOptimizer(model.parameters(), "train", total_steps=200)    in a loop of your own

Where what is, from the bottom up; a module uses those above it:

    data, models, params    images as tensors on the device; networks by name; a network's parameters as one vector
    attacks                 fgsm, pgd, apgd, square, mi_fgsm, transfer: predict, images, labels to adversarial images
    evaluation              robust accuracy, counted here alone: an ensemble of attacks, a report, checks of both
    objectives              what is minimised: cross-entropy, loss under attack, penalties
    tasks, optimizers       inner problems, T at once; SGD and Adam as functions of state and gradient
    unroll, training        the inner loop: an optimizer trains models, differentiable from end to end
    learned                 learned optimizers: modules whose parameters are theta, and optimizers beside SGD and Adam
    family, meta            inner problems to sample from; meta-training moves theta by a meta-gradient
    pretrained, optim       theta of recorded runs, with cards; a learned optimizer as a torch.optim.Optimizer
    fitting, patching       what `patch` and `train` are made of, and these
    lab, book, course       complete experiments; figures, exercises and claims of the book; grading

Errors that a user can cause are `metarobust.errors.InputError`, and say what to do.
"""

__version__ = "0.2.0.dev0"

from metarobust.evaluation import evaluate
from metarobust.optim import MetaOptimizer
from metarobust.patching import patch, train

__all__ = ["MetaOptimizer", "__version__", "evaluate", "patch", "train"]
