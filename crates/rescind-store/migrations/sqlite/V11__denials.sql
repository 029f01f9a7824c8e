-- Requests that were refused, with what explains it. Rows are added and, when they are old or too many, deleted. owner: the client
-- whose share of the rows it takes, because it has proved its identity; 0: nobody known. client_id: the owner, or the client whose
-- API key was presented. details: JSON; newer programs may add members that older ones do not know.
CREATE TABLE denial (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    node       TEXT    NOT NULL,
    operation  TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    status     INTEGER NOT NULL,
    owner      INTEGER NOT NULL,
    client_id  INTEGER,
    address    TEXT,
    details    TEXT    NOT NULL
) STRICT;
CREATE INDEX denial_request ON denial (request_id);
CREATE INDEX denial_at ON denial (at);
CREATE INDEX denial_owner ON denial (owner);
CREATE INDEX denial_client ON denial (client_id);

-- When every token that the client had was revoked last. NULL: never, or by a program from before.
ALTER TABLE client ADD COLUMN tokens_revoked_at INTEGER;
