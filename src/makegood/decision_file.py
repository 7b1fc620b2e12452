"""The file of decisions that `makegood decide` writes: one line a row, whoever decided, a bundle at hand or a service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from makegood.contracts import Decision
from makegood.errors import CaseError, Problem


def check(out: Path) -> None:
    """Raise `CaseError` unless a file of decisions may be written there."""
    if out.suffix not in (".csv", ".parquet"):
        raise CaseError(Problem("--out", str(out), "a file that ends in .csv or .parquet", "name one"))
    if not out.parent.is_dir():
        raise CaseError(Problem("--out", str(out), "a file in a folder that exists", f"make the folder {out.parent} first"))


def write(out: Path, decisions: Sequence[Decision], places: pa.ChunkedArray | None = None) -> None:
    """Write one line a row, in the rows' order, with the path of its image where it has one; the file appears whole or not at all."""
    columns: dict[str, Any] = {"row": range(1, len(decisions) + 1), "id": [d.id for d in decisions]}
    columns |= {} if places is None else {"path": places.combine_chunks()}
    columns["action"] = [d.action for d in decisions]
    if any(d.quantity is not None for d in decisions):
        columns["quantity"] = pa.array([d.quantity for d in decisions], pa.float64())
    columns |= {"promise": [d.promise for d in decisions], "unit": [d.unit for d in decisions]}
    columns |= {f"p_{name}": [d.predictive[name] for d in decisions] for name in (decisions[0].predictive if decisions else ())}
    if any(d.prediction_set is not None for d in decisions):
        columns["set"] = ["; ".join(d.prediction_set or ()) for d in decisions]
        columns["guaranteed"] = [d.guaranteed for d in decisions]
    if any(d.reasons for d in decisions):
        columns["reasons"] = ["; ".join(f"{r.column} = {r.value}: {r.money:+.4g}" for r in d.reasons) for d in decisions]
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    part = out.with_name(f".{out.name}.part")
    try:
        (pyarrow.csv.write_csv if out.suffix == ".csv" else pyarrow.parquet.write_table)(table, part)
        part.replace(out)
    except OSError as error:
        raise CaseError(Problem("--out", str(out), "a file that can be written", error.strerror or str(error))) from None
