"""makegood trains a model, deploys it, and holds it to its promise about money.

>>> import makegood as mg
>>> mg.Case.__name__, mg.Estimate.__name__
('Case', 'Estimate')

Everything below is imported when it is first used, so that `import makegood` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from makegood.case import Case as Case
    from makegood.client import AsyncClient as AsyncClient
    from makegood.client import Client as Client
    from makegood.contracts import Decision as Decision
    from makegood.contracts import Estimate as Estimate
    from makegood.contracts import Run as Run
    from makegood.errors import BundleError as BundleError
    from makegood.errors import CaseError as CaseError
    from makegood.errors import DataError as DataError
    from makegood.errors import MakegoodError as MakegoodError
    from makegood.errors import NotBuilt as NotBuilt
    from makegood.errors import Refused as Refused
    from makegood.errors import ServiceError as ServiceError
    from makegood.families import wrap as wrap
    from makegood.model import Model as Model
    from makegood.model import load as load
    from makegood.pipeline import check as check
    from makegood.pipeline import run as run

__version__ = "0.1.0"

_HOME = {
    "Case": "case",
    "AsyncClient": "client",
    "Client": "client",
    "Decision": "contracts",
    "Estimate": "contracts",
    "Run": "contracts",
    "BundleError": "errors",
    "CaseError": "errors",
    "DataError": "errors",
    "MakegoodError": "errors",
    "NotBuilt": "errors",
    "Refused": "errors",
    "ServiceError": "errors",
    "wrap": "families",
    "Model": "model",
    "load": "model",
    "check": "pipeline",
    "run": "pipeline",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'makegood' has no attribute {name!r}")
    return getattr(import_module(f"makegood.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
