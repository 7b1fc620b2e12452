"""A ledger on a real PostgreSQL: lost connections, commits whose end nobody saw, writers that collide, a server that is away."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from tests.databases import Server
from tests.ledger.test_store import change, decision, states

from makegood.errors import LedgerError
from makegood.ledger import chain
from makegood.ledger.events import Event, Receipt
from makegood.ledger.postgres import LOCKS, MOST_PARTITIONS
from makegood.ledger.reading import Reader
from makegood.ledger.spool import Spool
from makegood.ledger.store import Ledger
from makegood.ledger.verify import verify


def until(true: Callable[[], bool]) -> None:
    """Wait for something."""
    patience = time.monotonic() + 40
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.02)


def end_connections(url: str) -> None:
    """End every other connection to a database, as an administrator does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def written(url: str) -> list[str]:
    """Return the ids of a ledger, in order."""
    reader = Reader.open(url)
    ids = [stored.event.id for batch in reader.scan() for stored in batch]
    reader.close()
    return ids


# -------------------------------------------------------------------------------------------------------- lost connections


def test_a_lost_connection_is_made_again(postgres: str, tmp_path: Path) -> None:
    with Ledger.open(postgres) as ledger:
        assert states(ledger.append([decision("a")])) == ["new"]
        end_connections(postgres)
        assert states(ledger.append([decision("a"), decision("b")])) == ["same", "new"]
        end_connections(postgres)
        assert states(ledger.append([decision("c")])) == ["new"]
        assert ledger.state.ok
    assert written(postgres) == ["a", "b", "c"]
    assert verify(postgres, folder=tmp_path).ok


class Proxy:
    """A network between a service and its server, which loses one answer: that to the first COMMIT after `cut` was set."""

    def __init__(self, target: str) -> None:
        self.target, self.cut, self.commits = target, False, 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            self._open += [client, server]
            for source, sink, said in ((client, server, True), (server, client, False)):
                thread = threading.Thread(target=self._carry, args=(source, sink, said))
                thread.start()
                self._threads.append(thread)

    def _carry(self, source: socket.socket, sink: socket.socket, said: bool) -> None:
        losing = False
        try:
            while data := source.recv(65536):
                if said and self.cut and b"COMMIT" in data:
                    self.cut, losing = False, True
                    source.shutdown(socket.SHUT_RDWR)  # the service hears nothing more; the server hears this
                sink.sendall(data)
                if losing:
                    self.commits += 1
                    return
        except OSError:
            pass
        finally:
            if not losing:
                for each in (source, sink):
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for each in self._open:
            each.close()


@pytest.fixture
def proxy(postgres: str) -> Iterator[Proxy]:
    """A network to the server."""
    folder = str(sa.make_url(postgres).query["host"])
    made = Proxy(f"{folder}/.s.PGSQL.5432")
    yield made
    made.close()


def test_a_commit_whose_end_nobody_saw_is_looked_up(postgres: str, proxy: Proxy, tmp_path: Path) -> None:
    through = f"postgresql://postgres@127.0.0.1:{proxy.port}/{sa.make_url(postgres).database}?sslmode=disable"
    with Ledger.open(through) as ledger:
        ledger.append([decision("before")])
        for i in range(3):
            proxy.cut = True
            receipts = ledger.append([decision("before"), decision(f"a{i}"), decision(f"b{i}")])
            assert states(receipts) == ["same", "new", "new"]  # it was this submission that wrote them
            assert proxy.commits == i + 1
        assert ledger.state.ok
    assert sorted(written(postgres)) == sorted(["before", *(f"{x}{i}" for x in "ab" for i in range(3))])
    assert verify(postgres, folder=tmp_path).ok


@pytest.mark.slow
def test_under_load_a_server_that_crashes_loses_and_doubles_nothing(postgres_server: Server, postgres: str, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    stop = threading.Event()

    def write(ledger: Ledger, name: str) -> None:
        n = 0
        while not stop.is_set():
            try:
                (receipt,) = ledger.append([decision(f"{name}{n}")])
            except LedgerError:
                time.sleep(0.01)  # and again, under the same id
                continue
            assert receipt.state in ("new", "same")
            acknowledged.append(f"{name}{n}")
            n += 1

    with Ledger.open(postgres) as one, Ledger.open(postgres) as two:
        threads = [threading.Thread(target=write, args=(ledger, name)) for ledger, name in ((one, "a"), (one, "b"), (two, "c"))]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.4)
            postgres_server.stop("immediate")
            postgres_server.start()
            so_far = len(acknowledged)
            until(lambda so_far=so_far: len(acknowledged) > so_far + 20)  # type: ignore[misc]
        stop.set()
        for thread in threads:
            thread.join()
        until(lambda: one.state.ok and two.state.ok)
    found = written(postgres)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert verify(postgres, folder=tmp_path).ok


# ---------------------------------------------------------------------------------------------------------- a server away


def test_while_the_server_is_away_submissions_fail_at_once(postgres_server: Server, postgres: str) -> None:
    with Ledger.open(postgres) as ledger:
        ledger.append([decision("a")])
        postgres_server.stop()
        try:
            with pytest.raises(LedgerError, match="what was under way may be there, so repeat it under the same ids"):
                ledger.append([decision("b")])
            assert not ledger.state.ok
            for call in (lambda: ledger.append([decision("c")]), lambda: ledger.maintain(lambda connection, write: None)):
                began = time.monotonic()
                with pytest.raises(LedgerError, match="expected a ledger that can be written; try again in a moment"):
                    call()
                assert time.monotonic() - began < 1
            with pytest.raises(LedgerError, match="expected a ledger that can be read; see that it is there"):
                ledger.reader.event("a")
            time.sleep(1.5)  # it is looked for in vain
        finally:
            postgres_server.start()
        until(lambda: ledger.state.ok)
        assert states(ledger.append([decision("a"), decision("b")])) == ["same", "new"]
    assert written(postgres) == ["a", "b"]


def test_a_ledger_that_is_away_at_first_is_not_opened(postgres_server: Server, postgres: str) -> None:
    url = postgres.replace("postgres@", "postgres:secret@")
    postgres_server.stop()
    try:
        with pytest.raises(LedgerError, match="a PostgreSQL database; see that the server runs") as caught:
            Ledger.open(url)
    finally:
        postgres_server.start()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("spooling", [False, True])
@pytest.mark.parametrize("at", ["a statement", "the commit"])
def test_work_whose_connection_is_lost_is_refused(postgres: str, tmp_path: Path, spooling: bool, at: str) -> None:
    def lose(connection: sa.Connection, write: Callable[[list[Event]], None]) -> None:
        write([decision("lost")])
        end_connections(postgres)
        if at == "a statement":
            connection.exec_driver_sql("SELECT 1")

    with Ledger.open(postgres, spool=tmp_path / "spool" if spooling else None) as ledger:
        with pytest.raises(LedgerError, match="try again in a moment"):
            ledger.maintain(lose)
        until(lambda: ledger.state.why == "")
        assert states(ledger.append([decision("lost")])) == ["new"]


def test_what_goes_on_elsewhere_is_another_ledger(postgres: str) -> None:
    with Ledger.open(postgres) as ledger:
        ledger.append([decision("a")])
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute("TRUNCATE makegood_events, makegood_private")
            connection.execute("UPDATE makegood_meta SET value = 'salt' WHERE name = 'salt'")
            connection.execute("UPDATE makegood_meta SET value = %s WHERE name = 'ledger'", (chain.named("salt"),))
        end_connections(postgres)
        with pytest.raises(LedgerError, match="another ledger at this address"):
            ledger.append([decision("b")])
        assert not ledger.state.ok
    assert written(postgres) == []


# ----------------------------------------------------------------------------------------------------------------- spooled


def test_while_the_server_is_away_the_spool_takes_what_it_may(postgres_server: Server, postgres: str, tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with Ledger.open(postgres, spool=path) as ledger:
        ledger.append([decision("a")])
        postgres_server.stop()
        try:
            assert states(ledger.append([decision("b"), decision("c")])) == ["new", "new"]
            state = ledger.state
            assert (state.ok, state.spooled, state.why != "") == (True, 2, True)
            assert states(ledger.append([decision("b"), decision("c", b"other"), decision("a", b"again")])) == ["same", "conflict", "new"]
            told: list[list[Receipt] | LedgerError] = []
            promoted = decision("p", kind="promotion", private=None)
            for event in (decision("d"), promoted, decision("e")):  # perhaps of one group: each is answered by itself
                ledger.submit([event], told.append)
            until(lambda: len(told) == 3)
            assert [states(told[i]) for i in (0, 2)] == [["new"], ["new"]]  # type: ignore[arg-type]
            assert isinstance(told[1], LedgerError)
        finally:
            postgres_server.start()
        until(lambda: ledger.state.spooled == 0 and ledger.state.why == "")
        assert states(ledger.append([decision("c"), decision("f"), promoted])) == ["same", "new", "new"]
        kept = [id for id in written(postgres) if id.startswith("a:")]
        assert len(kept) == 1  # it was answered, so it is kept; its id was another's
        stored = ledger.reader.event(kept[0])
        assert stored is not None
        assert replace(stored.event, id="a") == decision("a", b"again")
    assert path.stat().st_size == 0
    assert written(postgres) == ["a", "b", "c", "d", "e", *kept, "f", "p"]
    assert verify(postgres, folder=tmp_path).ok


def test_what_a_service_left_in_its_spool_is_written_first_and_once(
    postgres: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Ledger.open(postgres) as ledger:
        ledger.append([decision("a"), decision("b"), replace(decision("c"), body=b"then")])
    for _ in range(2):  # as if it had been killed before it could empty the file
        spool = Spool(tmp_path / "spool")
        spool.append([decision("a"), decision("b", b"other"), decision("c"), decision("d")])
        spool.close()
        with Ledger.open(postgres, spool=tmp_path / "spool") as ledger:
            assert ledger.state.spooled == 0
            assert states(ledger.append([decision("d")])) == ["same"]
    ids = written(postgres)
    assert ids[:4] == ["a", "b", "c", "d"]
    assert [id.split(":")[0] for id in ids[4:]] == ["b", "c"]
    assert "spooled event b: its id holds another; it is kept as b:" in caplog.text


def test_a_spool_that_cannot_be_replayed_keeps_the_ledger_shut(postgres: str, tmp_path: Path) -> None:
    Ledger.open(postgres).close()
    spool = Spool(tmp_path / "spool")
    spool.append([decision("a")])
    spool.close()
    change(postgres, "ALTER TABLE makegood_events ADD CONSTRAINT no CHECK (id <> 'a')")
    with pytest.raises(LedgerError, match="expected a ledger that takes what is spooled; see its log; what is spooled is safe"):
        Ledger.open(postgres, spool=tmp_path / "spool")
    change(postgres, "ALTER TABLE makegood_events DROP CONSTRAINT no")
    with Ledger.open(postgres, spool=tmp_path / "spool") as ledger:
        assert states(ledger.append([decision("a")])) == ["same"]


def test_a_full_spool_refuses_what_it_cannot_take(postgres_server: Server, postgres: str, tmp_path: Path) -> None:
    with Ledger.open(postgres, spool=tmp_path / "spool") as ledger:
        spool = ledger._writer._spool
        assert spool is not None
        spool._limit = 300
        postgres_server.stop()
        try:
            with pytest.raises(LedgerError, match="the spool failed: it holds 0 bytes, of 300 that it may"):
                ledger.append([decision("a", b"x" * 400)])
        finally:
            postgres_server.start()
        until(lambda: not ledger.state.why)
        assert states(ledger.append([decision("a")])) == ["new"]


# -------------------------------------------------------------------------------------------------------- several at once


def test_writers_that_get_the_same_ids_at_once_agree(postgres: str, tmp_path: Path) -> None:
    ids = [f"d{i}" for i in range(40)]
    with Ledger.open(postgres) as one, Ledger.open(postgres) as two, Ledger.open(postgres) as three:
        with ThreadPoolExecutor(12) as threads:
            orders = [[decision(id) for id in order] for order in (ids, ids[::-1], ids[20:] + ids[:20]) for _ in range(4)]
            answers = list(threads.map(lambda each: each[0].append(each[1]), zip([one, two, three] * 4, orders, strict=True)))
        assert all(ledger.state.ok for ledger in (one, two, three))
    said = [receipt for receipts in answers for receipt in receipts]
    assert {receipt.state for receipt in said} == {"new", "same"}
    assert sorted(receipt.id for receipt in said if receipt.state == "new") == sorted(ids)
    assert sorted(written(postgres)) == sorted(ids)
    assert verify(postgres, folder=tmp_path).ok


def test_several_may_make_the_tables(postgres: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        ledgers = list(threads.map(Ledger.open, [postgres] * 4))
    assert len({ledger.id for ledger in ledgers}) == 1
    assert {states(ledger.append([decision(ledger_name)]))[0] for ledger_name, ledger in zip("abcd", ledgers, strict=True)} == {"new"}
    places = {stored.partition for batch in ledgers[0].reader.scan() for stored in batch}
    assert places == {0, 1, 2, 3}
    for ledger in ledgers:
        ledger.close()


def test_promotions_of_several_writers_are_in_one_order(postgres: str) -> None:
    with Ledger.open(postgres) as one, Ledger.open(postgres) as two:
        with ThreadPoolExecutor(8) as threads:
            made = [(ledger, decision(f"p{i}", kind="promotion", private=None)) for i, ledger in enumerate([one, two] * 20)]
            list(threads.map(lambda each: each[0].append([each[1]]), made))
        times = [stored.event.at for stored in one.reader.promotions("loans")]
    assert len(set(times)) == 40
    assert times == sorted(times)


def test_partitions_can_all_be_taken(postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s, n) FROM generate_series(0, %s) n", (LOCKS, MOST_PARTITIONS - 1)).fetchall()
        with pytest.raises(LedgerError, match="got '4096 writers'; expected fewer at once; stop some"):
            Ledger.open(postgres)


# ------------------------------------------------------------------------------------------------------------ how it is set


def test_commits_are_durable_whatever_the_database_has_set(postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        name = sa.make_url(postgres).database
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")  # type: ignore[arg-type]
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")  # type: ignore[arg-type]
    with Ledger.open(f"{postgres}&connect_timeout=7") as ledger:
        for setting, value in (("synchronous_commit", "on"), ("transaction_isolation", "read committed")):
            assert ledger.maintain(lambda c, _, s=setting: c.exec_driver_sql(f"SHOW {s}").scalar_one()) == value  # type: ignore[misc]


def test_a_server_that_is_not_durable_is_refused(postgres: str) -> None:
    def set_fsync(value: str) -> None:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET fsync = {value}")  # type: ignore[arg-type]
            connection.execute("SELECT pg_reload_conf()")
        until(lambda: psycopg_says(postgres, "SHOW fsync") == value)

    set_fsync("off")
    try:
        with pytest.raises(LedgerError, match="fsync off'; expected a server on which a commit is durable; set them to on"):
            Ledger.open(postgres)
    finally:
        set_fsync("on")


def psycopg_says(url: str, statement: str) -> object:
    """Return one value."""
    with psycopg.connect(url) as connection:
        row = connection.execute(statement).fetchone()  # type: ignore[arg-type]
        return row and row[0]


def test_tables_that_are_not_as_they_should_be_stop_the_writer(postgres: str) -> None:
    with Ledger.open(postgres) as ledger:
        change(postgres, "DROP TABLE makegood_private")
        with pytest.raises(LedgerError, match='relation "makegood_private" does not exist'):
            ledger.append([decision("a")])
        with pytest.raises(LedgerError, match="start the service again"):
            ledger.append([decision("b", private=None)])


def test_without_its_driver_the_extra_is_named() -> None:
    for opened in ("store import Ledger", "reading import Reader"):
        code = (
            "import sys; sys.modules['psycopg'] = None\n"
            f"from makegood.ledger.{opened} as opened; opened.open('postgresql://nobody@127.0.0.1:1/none')"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "MissingExtra: ledger: got 'psycopg is not installed'" in told.stderr
        assert "pip install 'makegood[postgres]'" in told.stderr
