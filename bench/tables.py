"""Tables by file, from `init` to verdict, as a new user would run them: no case is tuned.

German credit, Pima diabetes and student maths are cross-fitted in ten folds and pooled; Taiwan's credit cards are split 80/20 with five
seeds. Beside each AUC stands a random forest of scikit-learn with its own defaults on the same folds' worth of data (10-fold, pooled).
Usage: python bench/tables.py FOLDER, which holds risk/, diagnosis/ and assessment/.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import result
from makegood import pipeline
from makegood.draft import Answers, draft

TABLES = (
    ("risk/german_credit.csv", "defaulted", (0,)),
    ("risk/taiwan_default.csv.gz", "Default", (0, 1, 2, 3, 4)),
    ("diagnosis/pima_diabetes.csv", "Outcome", (0,)),
    ("assessment/student_maths.csv.gz", "G3", (0,)),
)


def measure(path: Path, outcome: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Return verdicts, metrics and seconds over the seeds; for classes the peer's AUC too."""
    with tempfile.TemporaryDirectory() as folder:
        case = draft(str(path), Answers(outcome), Path(folder) / "case.yaml", ask=None, say=lambda _: None)
        done = [pipeline.run(pipeline.override(case, seed=seed), workspace=Path(folder) / "runs") for seed in seeds]
    metrics = [run.evaluation.metrics for run in done if run.evaluation]
    figures = {name: sum(m[name].value for m in metrics) / len(metrics) for name in metrics[0]}
    peer = {"random forest roc_auc": forest(path, outcome)} if "roc_auc" in figures else {}
    return {
        "verdicts": [run.evaluation.verdict for run in done if run.evaluation],
        **figures,
        **peer,
        "seconds a run": sum(run.seconds for run in done) / len(done),
    }


def forest(path: Path, outcome: str) -> float:
    """Return the pooled ten-fold AUC of a random forest on one-hot columns."""
    frame = pd.read_csv(path)
    target = frame.pop(outcome)
    hit = (target == sorted(target.unique())[-1]).to_numpy()
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    model = RandomForestClassifier(300, random_state=0, n_jobs=-1)
    p = cross_val_predict(model, pd.get_dummies(frame), hit, cv=folds, method="predict_proba")
    return float(roc_auc_score(hit, p[:, 1]))


def main() -> None:
    """Measure all tables of a folder."""
    folder = Path(sys.argv[1])
    figures = {path: measure(folder / path, outcome, seeds) for path, outcome, seeds in TABLES}
    result.write("tables", figures, ("lightgbm", "numpy", "scikit-learn"))


if __name__ == "__main__":
    main()
