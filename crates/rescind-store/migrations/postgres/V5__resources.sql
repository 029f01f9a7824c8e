-- URIs of APIs, joined by spaces: of a client, those that its tokens may be for; of a session, those that its tokens
-- are for. Empty: tokens.audience.
ALTER TABLE client ADD COLUMN resources text NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN resources text NOT NULL DEFAULT '';

-- Whether the key's access tokens have client_id and jti, which those of keys from before do not.
ALTER TABLE signing_key ADD COLUMN rfc9068 boolean NOT NULL DEFAULT false;
ALTER TABLE signing_key DROP CONSTRAINT signing_key_algorithm_check;
ALTER TABLE signing_key ADD CONSTRAINT signing_key_algorithm_check
    CHECK (algorithm IN ('HS256', 'EdDSA', 'Ed25519', 'ES256'));

-- A program from before would refuse the tokens of such a key, and issue tokens of such a client for tokens.audience.
-- So from the first of them on it does not start any more, and there is none while it serves. The lock on schema's row is
-- taken for the first of them alone, so that changes of clients do not wait for each other.
CREATE FUNCTION needs_resources() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE schema SET readable_by = 5 WHERE readable_by < 5;
    IF EXISTS (SELECT FROM node WHERE schema_version < 5) THEN
        RAISE EXCEPTION 'a node of an older version serves from these tables';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER needs_resources AFTER INSERT ON signing_key
    FOR EACH ROW WHEN (NEW.rfc9068) EXECUTE FUNCTION needs_resources();
CREATE TRIGGER first_resources AFTER INSERT ON client
    FOR EACH ROW WHEN (NEW.resources <> '') EXECUTE FUNCTION needs_resources();
CREATE TRIGGER other_resources AFTER UPDATE ON client
    FOR EACH ROW WHEN (NEW.resources <> '' AND NEW.resources <> OLD.resources) EXECUTE FUNCTION needs_resources();
