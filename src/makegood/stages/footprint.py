"""How much memory a scorer takes: a fresh process loads it, scores rows one at a time and in batches, and tells its peak.

Run as `python -m makegood.stages.footprint FOLDER ROWS LEVEL THREADS`, where the folder holds scorer.onnx and rows.npy.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from makegood.contracts import Floats
from makegood.scorer import Scorer
from makegood.stages.meter import peak_bytes

ROWS = 64
_SECONDS = 120.0


def held(scorer: Scorer, features: Floats) -> int | None:
    """Return the most bytes that a process holds which scores `features` (n, n_features) and does nothing else.

    None where the system does not tell, or the process does not come to its end.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scorer.onnx").write_bytes(scorer.model)
        np.save(folder / "rows.npy", np.ascontiguousarray(features[:ROWS], np.float32))
        words = [sys.executable, "-m", "makegood.stages.footprint", name, str(scorer.rows), scorer.level, str(scorer.threads)]
        try:
            told = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return None
    return int(told.stdout) if told.returncode == 0 and told.stdout.strip().isdigit() else None


def main(folder: Path, rows: int, level: str, threads: int) -> int | None:
    """Return the peak of this process after scoring the rows in a folder."""
    scorer = Scorer((folder / "scorer.onnx").read_bytes(), rows, level, threads)
    features = np.load(folder / "rows.npy", allow_pickle=False)
    for at in range(len(features)):
        scorer(features[at : at + 1])
    scorer(features)
    return peak_bytes()


if __name__ == "__main__":
    sys.stdout.write(str(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])) or ""))
