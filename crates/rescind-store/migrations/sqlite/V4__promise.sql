-- The longest lease that a verifier may still have of whoever had this store: written before the first of that
-- term is lent, for the process that comes after. Where there have been verifiers before anybody wrote it, it is
-- the longest that could be configured.
CREATE TABLE lent (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    term_ms INTEGER NOT NULL
) STRICT;
INSERT INTO lent (one, term_ms)
SELECT 1, CASE WHEN EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'verifier') THEN 60000 ELSE 0 END;
-- The HS256 key of the refresh tokens of the sessions that name this key, sealed like it. NULL in rows from
-- before: such a key signs these tokens itself.
ALTER TABLE signing_key ADD COLUMN refresh_sealed BLOB;

-- It takes a token from none but the addresses on its client's allowlist.
ALTER TABLE client ADD COLUMN enforces_allowlist INTEGER NOT NULL DEFAULT 0;
-- How many records callers have, each client's by itself; 0 stands for callers of whom no client is known.
CREATE INDEX audit_of_caller ON audit (coalesce(client_id, 0), id) WHERE actor = 'caller';

-- When the store was used last, by a clock that was believed. No row: by a program that saved none.
CREATE TABLE clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    used_at INTEGER NOT NULL
) STRICT;
