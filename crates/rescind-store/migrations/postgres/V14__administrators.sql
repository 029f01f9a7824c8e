-- People who use the dashboard. password: Argon2id; totp: sealed under the master key; NULL until they have enrolled. totp_used:
-- the number of the last code, which is refused from then on. generation: raised to end every sign-in.
CREATE TABLE administrator (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text   NOT NULL UNIQUE,
    role            text   NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    generation      bigint NOT NULL,
    password        text,
    totp            bytea,
    totp_used       bigint NOT NULL,
    enrolment_hash  bytea,
    enrolment_until bigint,
    created_at      bigint NOT NULL,
    signed_in_at    bigint
);

-- The stays of administrators in the dashboard. hash: of the cookie.
CREATE TABLE sign_in (
    hash          bytea  PRIMARY KEY,
    administrator bigint NOT NULL,
    generation    bigint NOT NULL,
    began_at      bigint NOT NULL,
    used_at       bigint NOT NULL
);

-- Secrets that are handed to somebody by a link. sealed: under a key that only the link has; NULL once it was read.
CREATE TABLE handover (
    hash       bytea  PRIMARY KEY,
    client_id  bigint NOT NULL,
    api_key    text   NOT NULL,
    sealed     bytea,
    created_at bigint NOT NULL,
    ends_at    bigint NOT NULL,
    read_at    bigint
);

-- Where a credential's secret is kept, for people.
ALTER TABLE credential ADD COLUMN note text;
