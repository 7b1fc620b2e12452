"""The Open Bandit Pipeline's doubly robust value of the arrays in a file: obp_value.py ARRAYS.npz

It runs in an environment with numpy, pandas, scikit-learn and `pip install --no-deps obp`. The package imports much that its NumPy
estimators do without, torch above all, so that their module is imported alone, beside an empty torch.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np

spec = importlib.util.find_spec("obp")
root = Path(spec.submodule_search_locations[0])
for name, folder in (("obp", root), ("obp.ope", root / "ope"), ("torch", root)):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]
sys.modules["torch"].Tensor = type("Tensor", (), {})

from obp.ope.estimators import DoublyRobust  # noqa: E402

given = np.load(sys.argv[1])
rows = np.arange(len(given["done"]))
value = DoublyRobust().estimate_policy_value(
    reward=given["paid"],
    action=given["done"],
    pscore=given["chance"][rows, given["done"]],
    action_dist=given["policy"][:, :, None],
    estimated_rewards_by_reg_model=given["q"][:, :, None],
    position=np.zeros(len(rows), dtype=int),
)
print(repr(float(value)))
