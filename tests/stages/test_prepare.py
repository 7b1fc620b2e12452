"""What the prepare stage refuses before it looks at the values."""

from __future__ import annotations

import pyarrow as pa
import pytest

from makegood.case import Case
from makegood.errors import NotBuilt
from makegood.stages.prepare import prepare_rows

CASE = """
case: several
data: {outcome: labels}
decision:
  unit: EUR
  actions: {route: {payoff: 1}, leave: {payoff: 0}}
"""


def test_several_labels_a_row_are_refused_by_name() -> None:
    table = pa.table({"x": list(range(40)), "labels": [["a", "b"], ["a"]] * 20})
    with pytest.raises(NotBuilt) as error:
        prepare_rows(Case.parse(CASE), table)
    expected = "data.outcome: 'labels': got 'lists or records'; expected one outcome a row: several labels a row are not built yet; "
    assert str(error.value) == expected + "predict one label; see ROADMAP.md"
