-- People who use the dashboard. password: Argon2id; totp: sealed under the master key; NULL until they have enrolled. totp_used:
-- the number of the last code, which is refused from then on. generation: raised to end every sign-in.
CREATE TABLE administrator (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL UNIQUE,
    role            TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    generation      INTEGER NOT NULL,
    password        TEXT,
    totp            BLOB,
    totp_used       INTEGER NOT NULL,
    enrolment_hash  BLOB,
    enrolment_until INTEGER,
    created_at      INTEGER NOT NULL,
    signed_in_at    INTEGER
) STRICT;

-- The stays of administrators in the dashboard. hash: of the cookie.
CREATE TABLE sign_in (
    hash          BLOB    PRIMARY KEY,
    administrator INTEGER NOT NULL,
    generation    INTEGER NOT NULL,
    began_at      INTEGER NOT NULL,
    used_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Secrets that are handed to somebody by a link. sealed: under a key that only the link has; NULL once it was read.
CREATE TABLE handover (
    hash       BLOB    PRIMARY KEY,
    client_id  INTEGER NOT NULL,
    api_key    TEXT    NOT NULL,
    sealed     BLOB,
    created_at INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL,
    read_at    INTEGER
) STRICT, WITHOUT ROWID;

-- Where a credential's secret is kept, for people.
ALTER TABLE credential ADD COLUMN note TEXT;
