-- Each row's number in the chain of its node, and the hash over the row and the hash before. NULL: the row is older than the chains.
ALTER TABLE audit ADD COLUMN number INTEGER;
ALTER TABLE audit ADD COLUMN hash BLOB;
CREATE UNIQUE INDEX audit_chain ON audit (node, number) WHERE number IS NOT NULL;

-- Rows of a chain that were deleted by the rules of retention: their numbers, the hash before, the hash of the last one, and the
-- service's signature.
CREATE TABLE audit_cut (
    chain     TEXT    NOT NULL,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    before    BLOB    NOT NULL,
    hash      BLOB    NOT NULL,
    signature BLOB    NOT NULL,
    PRIMARY KEY (chain, last)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX audit_cut_first ON audit_cut (chain, first);

-- The newest row of each chain that the service has signed.
CREATE TABLE audit_checkpoint (
    chain     TEXT    PRIMARY KEY,
    number    INTEGER NOT NULL,
    hash      BLOB    NOT NULL,
    at        INTEGER NOT NULL,
    signature BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each webhook has come in the audit log, and which node delivers until when.
CREATE TABLE webhook (
    name          TEXT    PRIMARY KEY,
    cursor        INTEGER NOT NULL,
    claimed_by    TEXT    NOT NULL,
    claimed_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Events that a receiver has not accepted: they are tried again at next_at; NULL: no more.
CREATE TABLE webhook_delivery (
    webhook  TEXT    NOT NULL,
    event    INTEGER NOT NULL,
    tries    INTEGER NOT NULL,
    next_at  INTEGER,
    tried_at INTEGER NOT NULL,
    error    TEXT    NOT NULL,
    PRIMARY KEY (webhook, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_delivery_next ON webhook_delivery (webhook, next_at);
