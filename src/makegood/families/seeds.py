"""One seed for code that is not ours, which draws from generators that everybody shares; they are put back afterwards."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and what is loaded of torch and Keras; the generators of Python, NumPy and torch are put back at the end.

    TensorFlow's seed and Keras' own cannot be read by public means, and stay set.
    """
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    states = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        if torch is not None:
            stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
            torch.manual_seed(seed)
        try:
            random.seed(seed)
            np.random.seed(seed)
            if keras is not None:
                keras.utils.set_random_seed(seed)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
