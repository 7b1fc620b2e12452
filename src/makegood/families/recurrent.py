"""Recurrent layers for modules that `makegood.wrap` takes: `LSTM` and `GRU`, whose dropout has one mask a sequence.

Sequences (n, time, features) → the last state (n, hidden), or with `every_step` all of them (n, time, hidden). In front of them,
`nn.Unflatten(1, (time, features))` makes sequences of a table's features.
"""

from makegood.families._torch.recurrent import GRU, LSTM

__all__ = ["GRU", "LSTM"]
