"""Golden rows: what became of some rows when a bundle was made, to be found again wherever it is loaded.

They are rows of the data, and edges of the first of them where everything that payoffs spare is missing, never seen or extreme.
Replaying them compares every step: features, raw scores, predictive, expected payoffs, promise and action.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from makegood.bundle import REMAKE
from makegood.contracts import Floats
from makegood.errors import Problem

TOLERANCE = 1e-6
"""How far a number may be off on another processor: of itself where it is above 1; of the largest payoff where it is money."""

ROWS, FEWEST = 24, 4
CELLS = 50_000
"""Features that the golden rows may have in all, though `FEWEST` are always taken: an image has thousands."""

EDGES: tuple[Any, ...] = (None, "\u2203 never seen", 1e300, -1e300, 0, True, [], {"a": 1})
_STEPS = {
    "features": "feature",
    "raw": "raw score",
    "predictive": "predictive",
    "expected": "expected payoff",
    "promise": "promise",
    "sets": "prediction set",
    "guaranteed": "guaranteed payoff",
}
_MONEY = ("expected", "promise", "guaranteed")


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows as JSON values and what became of them: one entry a row everywhere; `option` names what was chosen.

    `sets` has a 1 for each class in the row's prediction set; it and `guaranteed` are empty in a bundle without sets.
    """

    rows: list[dict[str, Any]]
    features: list[list[float]]
    raw: list[list[float]]
    predictive: list[list[float]]
    expected: list[list[float]]
    promise: list[float]
    option: list[str]
    sets: list[list[int]] = []
    guaranteed: list[float] = []


def pick(
    raw: Mapping[str, Sequence[Any] | NDArray[Any]], spared: Sequence[str], pays: Callable[[dict[str, Any]], bool], most: int = ROWS
) -> list[dict[str, Any]]:
    """Return at most `most` rows drawn from `raw` for which `pays`, and the edges of the first; none when no row pays.

    On an edge every column of `spared` holds one of `EDGES`, or nothing; the others keep the row's own values.
    """
    n = len(next(iter(raw.values()), ()))
    found: list[dict[str, Any]] = []
    for i in np.random.default_rng(0).permutation(n):
        row = {name: json_cell(values[i]) for name, values in raw.items()}
        if pays(row):
            found.append(row)
        if len(found) == most:
            break
    kept = {name: value for name, value in found[0].items() if name not in spared} if found else {}
    return [*found, *(kept | dict.fromkeys(spared, edge) for edge in EDGES), kept] if found else []


def json_cell(cell: Any) -> Any:
    """Return a cell as the JSON value that is read as the cell is: NaN, infinity and no time become None, bytes base64.

    >>> json_cell(np.float64(0.5)), json_cell(np.nan), json_cell(np.datetime64("2024-02-29"))
    (0.5, None, '2024-02-29')
    """
    cell = cell.item() if isinstance(cell, np.generic) else cell
    if cell is None or isinstance(cell, str | bool | int):
        return cell
    if isinstance(cell, bytes):
        return base64.b64encode(cell).decode()
    if isinstance(cell, float):
        return cell if np.isfinite(cell) else None
    return cell.isoformat()  # NumPy's moments come as dates; a source holds nothing else


def compare(golden: Golden, now: Golden, net: Floats, options: Sequence[str], where: str) -> Iterator[Problem]:
    """Yield what comes out otherwise than it did: an error beyond `TOLERANCE`, a warning within it.

    `net` (n, n_options) is what the policy maximises. An action must be the same, or as good: where two options pay alike to
    `TOLERANCE`, the last bit of another processor may decide.
    """
    if not golden.rows:
        yield Problem(where, "no rows", "golden rows", REMAKE)
        return
    money = float(np.abs(now.expected).max(initial=0.0))
    for name, what in _STEPS.items():
        got, wanted = np.asarray(getattr(now, name)), np.asarray(getattr(golden, name))
        if got.shape != wanted.shape:
            yield Problem(f"{where}: {what}s", f"shape {got.shape}", f"shape {wanted.shape}", REMAKE)
        elif (got != wanted).any():
            off = np.abs(got - wanted) - TOLERANCE * (money if name in _MONEY else np.maximum(1.0, np.abs(wanted)))
            at = np.unravel_index(int(np.argmax(np.where(got == wanted, -np.inf, off))), off.shape)
            grave = not off[at] <= 0
            mend = REMAKE if grave else "nothing: this processor rounds otherwise"
            place = f"{where}: row {at[0] + 1}, {what}"
            yield Problem(place, repr(float(got[at])), repr(float(wanted[at])), mend, "error" if grave else "warning")
    if len(golden.option) != len(now.option):
        yield Problem(f"{where}: actions", f"{len(golden.option)}", f"{len(now.option)}", REMAKE)
        return
    for i, (got_, wanted_) in enumerate(zip(now.option, golden.option, strict=True)):
        if wanted_ not in options or net[i, options.index(got_)] - net[i, options.index(wanted_)] > TOLERANCE * money:
            yield Problem(f"{where}: row {i + 1}, action", got_, wanted_, REMAKE)
