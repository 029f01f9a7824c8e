-- A suspended client is resumed then; NULL: by an operator only. And why it was suspended, for people.
ALTER TABLE client ADD COLUMN suspended_until bigint;
ALTER TABLE client ADD COLUMN suspension_reason text;
CREATE INDEX client_suspended_until ON client (suspended_until) WHERE suspended_until IS NOT NULL;

-- A program from before leaves these columns alone when it resumes a client. What they say must not end a later
-- suspension.
CREATE FUNCTION suspension_is_over() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.suspended_until := NULL;
    NEW.suspension_reason := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER suspension_is_over BEFORE UPDATE OF status ON client
    FOR EACH ROW WHEN (NEW.status <> 'suspended' AND OLD.status = 'suspended')
    EXECUTE FUNCTION suspension_is_over();

-- When another one took its place, and it began to overlap with that.
ALTER TABLE credential ADD COLUMN replaced_at bigint;

-- Credentials that have ended are deleted after a time.
CREATE INDEX credential_ended ON credential (coalesce(revoked_at, expires_at))
    WHERE coalesce(revoked_at, expires_at) IS NOT NULL;

-- Which user asked for a change, where actor is 'operator'.
ALTER TABLE audit ADD COLUMN operator text;

-- From where each credential has logged in or refreshed, how often, and when last. The address is '' where it is not known.
CREATE TABLE credential_use (
    credential_id bigint NOT NULL,
    address       text   NOT NULL,
    at            bigint NOT NULL,
    times         bigint NOT NULL,
    PRIMARY KEY (credential_id, address)
);
