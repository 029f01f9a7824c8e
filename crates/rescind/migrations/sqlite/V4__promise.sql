-- How many records callers have, each client's by itself; 0 stands for callers of whom no client is known.
CREATE INDEX audit_of_caller ON audit (coalesce(client_id, 0), id) WHERE actor = 'caller';

-- When the store was used last, by a clock that was believed. No row: by a program that saved none.
CREATE TABLE clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    used_at INTEGER NOT NULL
) STRICT;
