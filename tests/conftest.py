"""What holds for all tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    """A test that builds a model by PyTorch's own initialisation, or draws images, draws the same ones every time."""
    torch.manual_seed(0)
