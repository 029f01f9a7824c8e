-- How many records callers have, each client's by itself; 0 stands for callers of whom no client is known.
CREATE INDEX audit_of_caller ON audit (coalesce(client_id, 0), id) WHERE actor = 'caller';
