-- Tokens of the admin API. clients: the ids, joined by spaces, of the clients that the token is bound to; NULL: it is bound to none.
CREATE TABLE management_token (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL,
    role         TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    clients      TEXT,
    token_hash   BLOB    NOT NULL UNIQUE,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER
) STRICT;

-- Creations by the admin API that named an idempotency key. token: who asked; 0 is the socket. created: what was created;
-- NULL: it is not known whether anything was.
CREATE TABLE creation (
    token    INTEGER NOT NULL,
    key      TEXT    NOT NULL,
    request  BLOB    NOT NULL,
    created TEXT,
    at       INTEGER NOT NULL,
    PRIMARY KEY (token, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX creation_at ON creation (at);
