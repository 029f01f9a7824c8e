-- Times are seconds since 1970-01-01T00:00:00Z. Ids are never used twice.

-- The oldest program that can still work on these tables, by the number of its last migration: what
-- adds leaves it alone, so that two versions may serve together while one takes over from the other.
CREATE TABLE schema (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    readable_by integer NOT NULL
);
INSERT INTO schema (readable_by) VALUES (1);

-- The pepper of the credentials, sealed under the master key.
CREATE TABLE sealed_secret (
    name   text  PRIMARY KEY,
    sealed bytea NOT NULL
);

-- Each key signs from signs_from until the next one does, and verifies until retire_at, which is
-- NULL for the newest.
CREATE TABLE signing_key (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kid        text   NOT NULL UNIQUE,
    algorithm  text   NOT NULL CHECK (algorithm IN ('HS256', 'EdDSA', 'ES256')),
    sealed     bytea  NOT NULL,
    created_at bigint NOT NULL,
    signs_from bigint NOT NULL,
    retire_at  bigint
);
CREATE UNIQUE INDEX signing_key_newest ON signing_key ((retire_at IS NULL)) WHERE retire_at IS NULL;

-- Deleted clients stay as a row, so that their tokens have somebody to be refused for. Every login
-- locks its client's row and every logout changes it: half of a page is left for that.
CREATE TABLE client (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text   NOT NULL,
    status     text   NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
    generation bigint NOT NULL,
    revision   bigint NOT NULL,
    allowlist  text   NOT NULL,
    scopes     text   NOT NULL,
    created_at bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE credential (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id   bigint NOT NULL REFERENCES client (id),
    api_key     text   NOT NULL UNIQUE,
    secret_hash bytea  NOT NULL,
    created_at  bigint NOT NULL,
    expires_at  bigint,
    revoked_at  bigint
);
CREATE INDEX credential_client ON credential (client_id);

-- Other processes that may follow the feed.
CREATE TABLE verifier (
    id           bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text    NOT NULL,
    token_hash   bytea   NOT NULL,
    shares_hs256 boolean NOT NULL,
    created_at   bigint  NOT NULL
);

-- One row a login, found by its id alone: no other index to write at login, none at refresh.
CREATE TABLE session (
    id                 bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id          bigint   NOT NULL,
    credential_id      bigint   NOT NULL,
    key_id             bigint   NOT NULL,
    generation         bigint   NOT NULL,
    scopes             text     NOT NULL,
    pair               bigint   NOT NULL,
    phase              smallint NOT NULL,
    started_at         bigint   NOT NULL,
    issued_at          bigint   NOT NULL,
    access_expires_at  bigint   NOT NULL,
    refresh_expires_at bigint   NOT NULL
) WITH (fillfactor = 80);
-- Sessions that ended before their time, for the feed. No login or refresh writes it.
CREATE INDEX session_ended ON session (id) WHERE phase = 2;

-- How many changes there were of what nodes hold in memory. Its row's lock makes the order of the
-- numbers the order of the commits.
CREATE TABLE head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq bigint  NOT NULL
) WITH (fillfactor = 50);
INSERT INTO head (seq) VALUES (0);

-- What changed, not how: whoever reads it looks up how that is now. id: of the client or session;
-- client: whose session.
CREATE TABLE change (
    seq    bigint PRIMARY KEY,
    kind   text   NOT NULL CHECK (kind IN ('client', 'session', 'keys', 'verifiers')),
    id     bigint CHECK ((id IS NOT NULL) = (kind IN ('client', 'session'))),
    client bigint CHECK ((client IS NOT NULL) = (kind = 'session'))
);

-- The nodes that may be serving: a logout waits until each has applied its change, or is gone, or
-- wait_ms have passed.
CREATE TABLE node (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    text   NOT NULL,
    wait_ms bigint NOT NULL,
    acked   bigint NOT NULL DEFAULT 0,
    beat    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
