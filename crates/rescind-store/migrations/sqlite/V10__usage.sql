-- How often each credential was used within each hour, in hours since 1970. client_id 0: all clients together; credential_id 0:
-- the credential is not known.
CREATE TABLE usage (
    hour          INTEGER NOT NULL,
    client_id     INTEGER NOT NULL,
    credential_id INTEGER NOT NULL,
    logins        INTEGER NOT NULL,
    refreshes     INTEGER NOT NULL,
    verifications INTEGER NOT NULL,
    denials       INTEGER NOT NULL,
    PRIMARY KEY (hour, client_id, credential_id)
) STRICT, WITHOUT ROWID;

-- When a token of each credential was verified last, and from where. The address is '' where it is not known.
CREATE TABLE last_verification (
    credential_id INTEGER PRIMARY KEY,
    at            INTEGER NOT NULL,
    address       TEXT    NOT NULL
) STRICT;

-- Which notices were given before something expires: this many days before, or fewer.
CREATE TABLE expiry_notice (
    subject    TEXT    NOT NULL,
    id         INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    days       INTEGER NOT NULL,
    PRIMARY KEY (subject, id, expires_at, days)
) STRICT, WITHOUT ROWID;
