-- How often each credential was used within each hour, in hours since 1970. client_id 0: all clients together; credential_id 0:
-- the credential is not known. The rows of the present hour change every few seconds, within the room of their pages.
CREATE TABLE usage (
    hour          bigint NOT NULL,
    client_id     bigint NOT NULL,
    credential_id bigint NOT NULL,
    logins        bigint NOT NULL,
    refreshes     bigint NOT NULL,
    verifications bigint NOT NULL,
    denials       bigint NOT NULL,
    PRIMARY KEY (hour, client_id, credential_id)
) WITH (fillfactor = 70);

-- When a token of each credential was verified last, and from where. The address is '' where it is not known.
CREATE TABLE last_verification (
    credential_id bigint PRIMARY KEY,
    at            bigint NOT NULL,
    address       text   NOT NULL
) WITH (fillfactor = 70);

-- Which notices were given before something expires: this many days before, or fewer.
CREATE TABLE expiry_notice (
    subject    text   NOT NULL,
    id         bigint NOT NULL,
    expires_at bigint NOT NULL,
    days       bigint NOT NULL,
    PRIMARY KEY (subject, id, expires_at, days)
);
