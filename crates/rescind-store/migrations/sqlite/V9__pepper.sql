-- The number of the pepper that the hash is under.
ALTER TABLE credential ADD COLUMN pepper INTEGER NOT NULL DEFAULT 1;
ALTER TABLE verifier ADD COLUMN pepper INTEGER NOT NULL DEFAULT 1;
ALTER TABLE management_token ADD COLUMN pepper INTEGER NOT NULL DEFAULT 1;
