-- What happened that concerns security. Rows are added and, when they are old, deleted; never changed.
-- actor: who did it, 'operator', 'service' or 'caller'; count: how often. Newer programs may write kinds
-- that older ones do not know.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    client_id  INTEGER,
    api_key    TEXT,
    session_id INTEGER,
    address    TEXT,
    node       TEXT    NOT NULL,
    request_id TEXT,
    detail     TEXT,
    count      INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_caller ON audit (id) WHERE actor = 'caller';
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'what is on record is not changed');
END;
