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
-- One history is told from another by its changes' marks: a change of the same number in another one has
-- another mark. A program from before lets the database give them.
ALTER TABLE change ADD COLUMN mark uuid NOT NULL DEFAULT gen_random_uuid();
-- This history's name. Another one from the change on in which what was found lost was repeated or ended.
ALTER TABLE head ADD COLUMN history uuid NOT NULL DEFAULT gen_random_uuid();

-- Histories that are known to have gone further than this database has them. repeated: what was lost of the
-- changes up to this one was repeated here, from a node's memory. ended: nobody remembered it, and every token
-- of that history was ended. The rest: the highest ids that are known to have been given there.
CREATE TABLE lost (
    history    uuid    PRIMARY KEY,
    repeated   bigint  NOT NULL,
    ended      boolean NOT NULL,
    at         bigint  NOT NULL,
    client     bigint  NOT NULL,
    credential bigint  NOT NULL,
    verifier   bigint  NOT NULL,
    key        bigint  NOT NULL,
    session    bigint  NOT NULL
);

-- Ids that may have been given there are not given again: a lost session's token must not be taken for one of
-- another session. It runs as the owner of the tables, who alone may move their sequences.
CREATE FUNCTION ids_go_on() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ids record;
BEGIN
    FOR ids IN
        SELECT pg_get_serial_sequence(name, 'id') AS sequence, seen, apart
        FROM (VALUES ('client', NEW.client, 1000), ('credential', NEW.credential, 1000),
                     ('verifier', NEW.verifier, 1000), ('signing_key', NEW.key, 1000),
                     -- Other nodes' logins were seen by nobody here: ten days of 5,000 a second.
                     ('session', NEW.session, 4294967296)) AS given (name, seen, apart)
    LOOP
        PERFORM setval(ids.sequence, greatest(nextval(ids.sequence), ids.seen) + ids.apart);
    END LOOP;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION ids_go_on() FROM PUBLIC;
CREATE TRIGGER ids_go_on AFTER INSERT OR UPDATE ON lost FOR EACH ROW EXECUTE FUNCTION ids_go_on();
-- How many records callers have, each client's by itself; 0 stands for callers of whom no client is known.
CREATE INDEX audit_of_caller ON audit (coalesce(client_id, 0), id) WHERE actor = 'caller';

-- When the store was used last, by a clock that was believed. No row: by a program that saved none.
CREATE TABLE clock (
    id      bigint PRIMARY KEY CHECK (id = 1),
    used_at bigint NOT NULL
);

-- By how many seconds a node's clock is ahead of the database's. NULL: it has not said so, as programs from before never do.
ALTER TABLE node ADD COLUMN clock_ahead bigint;
