-- Names, joined by spaces, of which a client's certificate must have one. Empty: it needs none.
ALTER TABLE client ADD COLUMN certificates TEXT NOT NULL DEFAULT '';
