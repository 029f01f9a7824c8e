-- What happened that concerns security. Rows are added and, when they are old, deleted; never changed.
-- Whoever adds some holds the lock on head's row, so that the order of the ids is that of the commits.
-- actor: who did it, 'operator', 'service' or 'caller'; count: how often. Newer programs may write kinds
-- that older ones do not know.
CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         bigint NOT NULL,
    kind       text   NOT NULL,
    actor      text   NOT NULL,
    client_id  bigint,
    api_key    text,
    session_id bigint,
    address    text,
    node       text   NOT NULL,
    request_id text,
    detail     text,
    count      bigint NOT NULL
);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_caller ON audit (id) WHERE actor = 'caller';

CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what is on record is not changed';
END $$;
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION audit_stays();
