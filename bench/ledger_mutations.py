"""Whether every change of a ledger that a reader would see is detected: the numbers of the ledger's mutation corpus.

    python bench/ledger_mutations.py [FLIPS]

A generated ledger (all kinds of event, two partitions, erasures, segments, anchors) is changed in one way at a time: every column of
rows of every table to values of every type, every row deleted, copied and exchanged, histories chained anew by a forger without the key,
ends cut off, its other files, and bits of the database's file. What all reads give before and after tells which of them are mutations.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.ledger import corpus, mutations

import result

FLIPS = 6000


def main() -> None:
    """Try them all, and write how many there were and how many were not detected."""
    flips = int(sys.argv[1]) if len(sys.argv) > 1 else FLIPS
    pick, rows = random.Random(20260101), []
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder, "original")
        path = corpus.build(original)
        assert not mutations.detected(original), "the ledger that is to be changed is not whole"
        kinds = {
            "values": mutations.every_value(path, pick, 6),
            "rows": mutations.every_row(path),
            "forgeries": mutations.forgeries(path),
            "files beside the database": mutations.files(original),
            "bits of the database": mutations.bytes_of_the_database(path, pick, flips),
        }
        for kind, changes in kinds.items():
            start = time.perf_counter()
            missed, seen, unseen = mutations.undetected(original, Path(folder, "copy"), changes)
            seconds = round(time.perf_counter() - start, 1)
            rows.append({"kind": kind, "mutations": seen, "seen by no read": unseen, "undetected": missed, "seconds": seconds})
            print(rows[-1], file=sys.stderr, flush=True)
    met = {"every mutation is detected": not any(row["undetected"] for row in rows)}
    result.write("ledger_mutations", {"rows": rows, "met": met}, ("makegood", "sqlalchemy"))


if __name__ == "__main__":
    main()
