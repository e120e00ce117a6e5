create or replace function postgear.set_functions(holder bigint, names bytea[]) returns void
language sql
as $$
-- Show what a worker can do, when that has changed.
--
-- Called by: workers straight on the database.  Tables: server (updates).
update postgear.server set functions = names where lease = holder and kind = 'worker'
$$;
