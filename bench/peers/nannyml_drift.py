"""NannyML's univariate drift on two tables, by its defaults: prints the seconds that it took and how many columns it alerts on.

nannyml_drift.py REFERENCE.parquet CURRENT.parquet
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

import nannyml
import pandas as pd

reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
start = time.perf_counter()
calculator = nannyml.UnivariateDriftCalculator(column_names=list(reference.columns))
alerts = calculator.fit(reference).calculate(current).filter(period="analysis").to_df().xs("alert", axis=1, level=-1)
print(json.dumps({"version": version("nannyml"), "seconds": time.perf_counter() - start, "drifted": int(alerts.any().sum())}))
