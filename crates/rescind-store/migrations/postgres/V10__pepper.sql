-- The number of the pepper that the hash is under.
ALTER TABLE credential ADD COLUMN pepper bigint NOT NULL DEFAULT 1;
ALTER TABLE verifier ADD COLUMN pepper bigint NOT NULL DEFAULT 1;
ALTER TABLE management_token ADD COLUMN pepper bigint NOT NULL DEFAULT 1;

-- A program from before would know nothing of a second pepper, and refuse secrets whose hash is under it. So from the
-- first rotation on it does not start any more, and there is none while it serves.
CREATE FUNCTION needs_peppers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE schema SET readable_by = 10 WHERE readable_by < 10;
    IF EXISTS (SELECT FROM node WHERE schema_version < 10) THEN
        RAISE EXCEPTION 'a node of an older version serves from these tables';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER needs_peppers AFTER INSERT ON sealed_secret
    FOR EACH ROW WHEN (NEW.name <> 'pepper') EXECUTE FUNCTION needs_peppers();
