-- The HS256 key of the refresh tokens of the sessions that name this key, sealed like it. NULL in rows from
-- before: such a key signs these tokens itself.
ALTER TABLE signing_key ADD COLUMN refresh_sealed bytea;

-- The newest migration that the node's program knows.
ALTER TABLE node ADD COLUMN schema_version integer NOT NULL DEFAULT 3;

-- A program from before would sign refresh tokens of such a key in the old form, and refuse those of the new
-- one. So from the first such key on it does not start any more, and there is none while it serves. The lock
-- on schema's row decides between a node that joins and such a key.
CREATE FUNCTION needs_refresh_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE schema SET readable_by = greatest(readable_by, 4);
    IF EXISTS (SELECT FROM node WHERE schema_version < 4) THEN
        RAISE EXCEPTION 'a node of an older version serves from these tables';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER needs_refresh_keys AFTER INSERT ON signing_key
    FOR EACH ROW WHEN (NEW.refresh_sealed IS NOT NULL) EXECUTE FUNCTION needs_refresh_keys();

-- One that has started before may still join, or join again.
CREATE FUNCTION node_can_read() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    needed integer;
BEGIN
    SELECT readable_by INTO needed FROM schema FOR SHARE;
    IF needed > NEW.schema_version THEN
        RAISE EXCEPTION 'the tables are those of a newer version than this node''s';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER node_can_read BEFORE INSERT ON node FOR EACH ROW EXECUTE FUNCTION node_can_read();

-- It takes a token from none but the addresses on its client's allowlist.
ALTER TABLE client ADD COLUMN enforces_allowlist boolean NOT NULL DEFAULT false;
