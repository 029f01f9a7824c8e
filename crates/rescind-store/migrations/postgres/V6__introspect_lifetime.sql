-- For how many seconds it may keep introspection's answers: 0 for answers without a time, NULL for as long as the token.
ALTER TABLE client ADD COLUMN introspect_lifetime bigint;

-- A program from before would let it keep them for as long as the token: from the first such client on it does
-- not start any more, and there is none while it serves.
CREATE FUNCTION needs_introspect_lifetime() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE schema SET readable_by = 6 WHERE readable_by < 6;
    IF EXISTS (SELECT FROM node WHERE schema_version < 6) THEN
        RAISE EXCEPTION 'a node of an older version serves from these tables';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER first_introspect_lifetime AFTER INSERT ON client
    FOR EACH ROW WHEN (NEW.introspect_lifetime IS NOT NULL) EXECUTE FUNCTION needs_introspect_lifetime();
CREATE TRIGGER other_introspect_lifetime AFTER UPDATE ON client
    FOR EACH ROW WHEN (NEW.introspect_lifetime IS NOT NULL AND NEW.introspect_lifetime IS DISTINCT FROM OLD.introspect_lifetime)
    EXECUTE FUNCTION needs_introspect_lifetime();
