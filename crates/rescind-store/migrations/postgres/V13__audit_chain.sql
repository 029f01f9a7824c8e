-- Each row's number in the chain of its node, and the hash over the row and the hash before. NULL: the row is older than the chains.
ALTER TABLE audit ADD COLUMN number bigint;
ALTER TABLE audit ADD COLUMN hash bytea;
CREATE UNIQUE INDEX audit_chain ON audit (node, number) WHERE number IS NOT NULL;

-- Rows of a chain that were deleted by the rules of retention: their numbers, the hash before, the hash of the last one, and the
-- service's signature.
CREATE TABLE audit_cut (
    chain     text   NOT NULL,
    first     bigint NOT NULL,
    last      bigint NOT NULL,
    before    bytea  NOT NULL,
    hash      bytea  NOT NULL,
    signature bytea  NOT NULL,
    PRIMARY KEY (chain, last),
    UNIQUE (chain, first)
);

-- The newest row of each chain that the service has signed.
CREATE TABLE audit_checkpoint (
    chain     text   PRIMARY KEY,
    number    bigint NOT NULL,
    hash      bytea  NOT NULL,
    at        bigint NOT NULL,
    signature bytea  NOT NULL
);

-- A value in the form that is hashed, which no other value has.
CREATE FUNCTION audit_part(value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(octet_length(convert_to(value, 'UTF8')) || ':' || value, '-')
$$;

-- Links a row to the row before it in its chain. Whoever inserts holds the lock on head's row, so nobody else links meanwhile.
-- In the database, because the hash before is known only under that lock: to ask for it would be one more round trip.
CREATE FUNCTION audit_link() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before record;
BEGIN
    SELECT newest.number, newest.hash INTO before FROM (
        (SELECT number, hash FROM audit WHERE node = NEW.node AND number IS NOT NULL ORDER BY number DESC LIMIT 1)
        UNION ALL
        (SELECT last, hash FROM audit_cut WHERE chain = NEW.node ORDER BY last DESC LIMIT 1)) AS newest (number, hash)
    ORDER BY number DESC LIMIT 1;
    NEW.number := coalesce(before.number, 0) + 1;
    NEW.hash := sha256(coalesce(before.hash, decode(repeat('00', 32), 'hex')) || convert_to(
        audit_part(NEW.node) || audit_part(NEW.number::text) || audit_part(NEW.id::text) || audit_part(NEW.at::text)
        || audit_part(NEW.kind) || audit_part(NEW.actor) || audit_part(NEW.operator) || audit_part(NEW.client_id::text)
        || audit_part(NEW.api_key) || audit_part(NEW.session_id::text) || audit_part(NEW.address)
        || audit_part(NEW.request_id) || audit_part(NEW.detail) || audit_part(NEW.count::text), 'UTF8'));
    RETURN NEW;
END $$;
CREATE TRIGGER audit_link BEFORE INSERT ON audit
    FOR EACH ROW WHEN (current_setting('rescind.audit', true) IS DISTINCT FROM 'copy') EXECUTE FUNCTION audit_link();

-- An older program would delete rows without a word on what it has deleted.
CREATE FUNCTION audit_is_cut() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what is on record is deleted only by a sweep that leaves a signed cut';
END $$;
CREATE TRIGGER audit_is_cut BEFORE DELETE ON audit FOR EACH ROW
    WHEN (OLD.number IS NOT NULL AND current_setting('rescind.audit', true) IS DISTINCT FROM 'sweep')
    EXECUTE FUNCTION audit_is_cut();

-- How far each webhook has come in the audit log, and which node delivers until when.
CREATE TABLE webhook (
    name          text   PRIMARY KEY,
    cursor        bigint NOT NULL,
    claimed_by    text   NOT NULL,
    claimed_until bigint NOT NULL
);

-- Events that a receiver has not accepted: they are tried again at next_at; NULL: no more.
CREATE TABLE webhook_delivery (
    webhook  text   NOT NULL,
    event    bigint NOT NULL,
    tries    bigint NOT NULL,
    next_at  bigint,
    tried_at bigint NOT NULL,
    error    text   NOT NULL,
    PRIMARY KEY (webhook, event)
);
CREATE INDEX webhook_delivery_next ON webhook_delivery (webhook, next_at);
