-- Requests that were refused, with what explains it. Rows are added and, when they are old or too many, deleted. owner: the client
-- whose share of the rows it takes, because it has proved its identity; 0: nobody known. client_id: the owner, or the client whose
-- API key was presented. details: JSON; newer programs may add members that older ones do not know.
CREATE TABLE denial (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id text   NOT NULL,
    at         bigint NOT NULL,
    node       text   NOT NULL,
    operation  text   NOT NULL,
    reason     text   NOT NULL,
    status     bigint NOT NULL,
    owner      bigint NOT NULL,
    client_id  bigint,
    address    text,
    details    text   NOT NULL
);
CREATE INDEX denial_request ON denial (request_id);
CREATE INDEX denial_at ON denial (at);
CREATE INDEX denial_owner ON denial (owner, id);
CREATE INDEX denial_client ON denial (client_id, id);

-- When every token that the client had was revoked last. NULL: never, or by a program from before.
ALTER TABLE client ADD COLUMN tokens_revoked_at bigint;
