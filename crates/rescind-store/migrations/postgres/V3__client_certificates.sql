-- Names, joined by spaces, of which a client's certificate must have one. Empty: it needs none.
ALTER TABLE client ADD COLUMN certificates text NOT NULL DEFAULT '';

-- A program from before would let such a client in without its certificate: from the first one on it
-- does not start any more.
CREATE FUNCTION needs_certificates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE schema SET readable_by = 3 WHERE readable_by < 3;
    RETURN NULL;
END $$;
CREATE TRIGGER needs_certificates AFTER INSERT OR UPDATE OF certificates ON client
    FOR EACH ROW WHEN (NEW.certificates <> '') EXECUTE FUNCTION needs_certificates();
