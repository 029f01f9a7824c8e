-- Tokens of the admin API. clients: the ids, joined by spaces, of the clients that the token is bound to; NULL: it is bound to none.
CREATE TABLE management_token (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text   NOT NULL,
    role         text   NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    clients      text,
    token_hash   bytea  NOT NULL UNIQUE,
    created_at   bigint NOT NULL,
    expires_at   bigint,
    last_used_at bigint
);

-- Creations by the admin API that named an idempotency key. token: who asked; 0 is the socket. created: what was created;
-- NULL: it is not known whether anything was.
CREATE TABLE creation (
    token    bigint NOT NULL,
    key      text   NOT NULL,
    request  bytea  NOT NULL,
    created text,
    at       bigint NOT NULL,
    PRIMARY KEY (token, key)
);
CREATE INDEX creation_at ON creation (at);
