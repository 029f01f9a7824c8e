-- The HS256 key of the refresh tokens of the sessions that name this key, sealed like it. NULL in rows from
-- before: such a key signs these tokens itself.
ALTER TABLE signing_key ADD COLUMN refresh_sealed BLOB;

-- It takes a token from none but the addresses on its client's allowlist.
ALTER TABLE client ADD COLUMN enforces_allowlist INTEGER NOT NULL DEFAULT 0;
