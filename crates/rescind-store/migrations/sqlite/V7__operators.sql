-- A suspended client is resumed then; NULL: by an operator only. And why it was suspended, for people.
ALTER TABLE client ADD COLUMN suspended_until INTEGER;
ALTER TABLE client ADD COLUMN suspension_reason TEXT;
CREATE INDEX client_suspended_until ON client (suspended_until) WHERE suspended_until IS NOT NULL;

-- When another one took its place, and it began to overlap with that.
ALTER TABLE credential ADD COLUMN replaced_at INTEGER;

-- Credentials that have ended are deleted after a time.
CREATE INDEX credential_ended ON credential (coalesce(revoked_at, expires_at))
    WHERE coalesce(revoked_at, expires_at) IS NOT NULL;

-- Which user asked for a change, where actor is 'operator'.
ALTER TABLE audit ADD COLUMN operator TEXT;

-- From where each credential has logged in or refreshed, how often, and when last. The address is '' where it is not known.
CREATE TABLE credential_use (
    credential_id INTEGER NOT NULL,
    address       TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    times         INTEGER NOT NULL,
    PRIMARY KEY (credential_id, address)
) STRICT, WITHOUT ROWID;
