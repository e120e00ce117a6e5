create or replace function gman_servers_check()
returns table (server text, reachable boolean, version text, milliseconds double precision, error text)
language sql
volatile
as $$
-- Connect to each server that gman_do would use and return whether it answers, its version and how long an echo took.
--
-- Servers: gman.servers, else those of this database's queue.  Tables: server (reads).
select server, reachable, version, milliseconds, error from @extschema@.gman_check()
$$;
comment on function gman_servers_check() is 'postgear: connect to each Gearman server that would be used';
