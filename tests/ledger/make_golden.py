"""Write the golden ledger of a release: every later release must open, verify and export it.

    python -m tests.ledger.make_golden

One is written for each version of the ledger's schema, of what is signed, and of what events there are, and never again: a change that
needs it anew breaks the ledgers that people have.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from tests.ledger import corpus

from makegood.ledger import anchors, schema

GOLDEN = Path(__file__).parent / "golden"
HOLDS = "alarms"
"""What the first ledger of this version of the schema did not hold yet."""


def main() -> None:
    """Write it; the private key is thrown away, so nobody can sign for this ledger again."""
    folder = GOLDEN / f"schema-{schema.VERSION}-{HOLDS}"
    if folder.exists():
        sys.exit(f"{folder} is there: golden ledgers are not written twice")
    path = corpus.build(folder, 8)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # as the service keeps it
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (folder / anchors.KEY).unlink()
    assert not list(folder.glob("*-wal")), "the log is folded in"
    sys.stdout.write(f"{folder}: {sum(p.stat().st_size for p in folder.rglob('*') if p.is_file()):,} bytes\n")


if __name__ == "__main__":
    main()
