-- For how many seconds it may keep introspection's answers: 0 for answers without a time, NULL for as long as the token.
ALTER TABLE client ADD COLUMN introspect_lifetime INTEGER;
