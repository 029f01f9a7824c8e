-- Times are seconds since 1970-01-01T00:00:00Z. Ids are never used twice.

-- The pepper of the credentials, sealed under the master key.
CREATE TABLE sealed_secret (
    name   TEXT PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Each key signs from signs_from until the next one does, and verifies until retire_at, which is
-- NULL for the newest.
CREATE TABLE signing_key (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kid        TEXT    NOT NULL UNIQUE,
    algorithm  TEXT    NOT NULL CHECK (algorithm IN ('HS256', 'EdDSA', 'ES256')),
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    signs_from INTEGER NOT NULL,
    retire_at  INTEGER
) STRICT;
CREATE UNIQUE INDEX signing_key_newest ON signing_key ((retire_at IS NULL)) WHERE retire_at IS NULL;

-- Deleted clients stay as a row, so that their tokens have somebody to be refused for.
CREATE TABLE client (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    status     TEXT    NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
    generation INTEGER NOT NULL DEFAULT 0,
    revision   INTEGER NOT NULL DEFAULT 0,
    allowlist  TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE credential (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    client_id   INTEGER NOT NULL REFERENCES client (id),
    api_key     TEXT    NOT NULL UNIQUE,
    secret_hash BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER
) STRICT;
CREATE INDEX credential_client ON credential (client_id);

-- Other processes that may follow the feed.
CREATE TABLE verifier (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL,
    token_hash   BLOB    NOT NULL,
    shares_hs256 INTEGER NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;

-- One row a login, found by its id alone: no index to write at login, none at refresh.
CREATE TABLE session (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    client_id          INTEGER NOT NULL,
    credential_id      INTEGER NOT NULL,
    key_id             INTEGER NOT NULL,
    generation         INTEGER NOT NULL,
    scopes             TEXT    NOT NULL,
    pair               INTEGER NOT NULL,
    phase              INTEGER NOT NULL,
    started_at         INTEGER NOT NULL,
    issued_at          INTEGER NOT NULL,
    access_expires_at  INTEGER NOT NULL,
    refresh_expires_at INTEGER NOT NULL
) STRICT;
-- Sessions that ended before their time, for the feed. No login or refresh writes it.
CREATE INDEX session_ended ON session (id) WHERE phase = 2;
