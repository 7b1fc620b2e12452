"""Evidently's drift preset on two tables: prints the seconds that it took and the columns that it calls drifted.

evidently_drift.py REFERENCE.parquet CURRENT.parquet
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
start = time.perf_counter()
found = Report([DataDriftPreset()]).run(current_data=current, reference_data=reference).dict()
seconds = time.perf_counter() - start
drifted = [m["value"] for m in found["metrics"] if "DriftedColumnsCount" in str(m.get("metric_name", m.get("metric_id", "")))]
print(json.dumps({"version": version("evidently"), "seconds": seconds, "drifted": drifted}))
