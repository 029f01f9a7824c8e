-- URIs of APIs, joined by spaces: of a client, those that its tokens may be for; of a session, those that its tokens
-- are for. Empty: tokens.audience.
ALTER TABLE client ADD COLUMN resources TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN resources TEXT NOT NULL DEFAULT '';

-- Whether the key's access tokens have client_id and jti, which those of keys from before do not. The table is made
-- anew, because its keys may now have a further algorithm.
CREATE TABLE new_signing_key (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    kid            TEXT    NOT NULL UNIQUE,
    algorithm      TEXT    NOT NULL CHECK (algorithm IN ('HS256', 'EdDSA', 'Ed25519', 'ES256')),
    sealed         BLOB    NOT NULL,
    refresh_sealed BLOB,
    rfc9068        INTEGER NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL,
    signs_from     INTEGER NOT NULL,
    retire_at      INTEGER
) STRICT;
INSERT INTO new_signing_key (id, kid, algorithm, sealed, refresh_sealed, created_at, signs_from, retire_at)
SELECT id, kid, algorithm, sealed, refresh_sealed, created_at, signs_from, retire_at FROM signing_key;
-- Ids of keys that were removed are not given again.
DELETE FROM sqlite_sequence WHERE name = 'new_signing_key';
INSERT INTO sqlite_sequence (name, seq)
SELECT 'new_signing_key', seq FROM sqlite_sequence WHERE name = 'signing_key';
DROP TABLE signing_key;
ALTER TABLE new_signing_key RENAME TO signing_key;
CREATE UNIQUE INDEX signing_key_newest ON signing_key ((retire_at IS NULL)) WHERE retire_at IS NULL;
