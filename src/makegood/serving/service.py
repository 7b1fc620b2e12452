"""What a request may need: the parts of a service, put together when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from makegood.ledger.store import Ledger
    from makegood.serving.batch import Batcher
    from makegood.serving.keys import Keyring
    from makegood.serving.log import Log
    from makegood.serving.metrics import Metrics
    from makegood.serving.rates import Rates
    from makegood.serving.rollout import Rollouts


@dataclass(frozen=True)
class Service:
    """Everything that a request may need."""

    rollouts: Rollouts
    ledger: Ledger
    keys: Keyring
    rates: Rates
    metrics: Metrics
    log: Log
    batcher: Batcher
