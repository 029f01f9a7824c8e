-- The issuer and audience that the node writes into tokens, as its operator reads them. Nodes with different ones would
-- refuse each other's tokens. NULL: a program from before has not told.
ALTER TABLE node ADD COLUMN profile text;
