"""Makes an embedded store large, by copies of rows that are there, and counts rows. Its server must have stopped."""

import contextlib
import sqlite3

SESSION = ("client_id, credential_id, key_id, generation, scopes, pair, phase, started_at, issued_at, access_expires_at,"
           " refresh_expires_at")
# Counts from 1 to the parameter.
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"


def add_sessions(data, sessions):
    """Gives clients so many sessions, of which each has one."""
    with changing(data) as store:
        for client, count in sessions.items():
            if count > 1:
                store.execute(
                    f"{NUMBERS} INSERT INTO session ({SESSION}) SELECT {SESSION} FROM n CROSS JOIN"
                    " (SELECT * FROM session WHERE client_id = ? LIMIT 1)", (count - 1, client))


def add_clients(data, count):
    """So many in all, each with a credential of which nobody knows the secret."""
    with changing(data) as store:
        client, credential = (copied(store, table, other) for table, other in (
            ("client", {"id": "NULL"}),
            ("credential", {"id": "NULL", "client_id": "?", "api_key": "'rk_' || lower(hex(randomblob(26)))",
                            "secret_hash": "randomblob(32)"})))
        for _ in range(count - 1):
            added = store.execute(f"INSERT INTO client {client} FROM client WHERE id = 1").lastrowid
            store.execute(f"INSERT INTO credential {credential} FROM credential WHERE id = 1", (added,))


def add_events(data, count, length):
    """So many more in the audit log, with so much detail, from before the chains."""
    with changing(data) as store:
        event = copied(store, "audit", {"id": "NULL", "number": "NULL", "hash": "NULL", "detail": f"substr(hex(zeroblob({length})), 1, {length})"})
        store.execute(f"{NUMBERS} INSERT INTO audit {event} FROM n CROSS JOIN (SELECT * FROM audit LIMIT 1)", (count,))


def count(data, table):
    """How many rows the table has. Its server may be serving."""
    with contextlib.closing(sqlite3.connect(f"file:{data / 'rescind.db'}?mode=ro", uri=True)) as store:
        return store.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def copied(store, table, other):
    """A SELECT of the table's columns, but of others instead of some."""
    columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
    return f"SELECT {', '.join(other.get(column, column) for column in columns)}"


@contextlib.contextmanager
def changing(data):
    with contextlib.closing(sqlite3.connect(data / "rescind.db")) as store, store:
        store.execute("PRAGMA synchronous = OFF")
        yield store
