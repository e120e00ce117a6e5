create or replace function postgear.register_server(
    server_name text, server_address text, server_pid integer, server_version text, seconds double precision,
    out lease bigint, out queue_name text
) returns record
language plpgsql
as $$
-- Start a lease: a number never used before, held by the calling session through an advisory lock until it ends.
-- Must be called on the session that the server keeps for its lease.
--
-- seconds: how long the lease lives without renewal when the session cannot be seen to have ended.
-- Called by: servers, once a start.  Tables: server, batch (inserts), queue (reads).
begin
    lease := nextval('postgear.lease_seq');
    perform pg_advisory_lock(postgear.lease_lock_class(), (lease % 2147483647)::integer);
    insert into postgear.server (lease, name, address, pid, version, lease_seconds)
    values (register_server.lease, server_name, server_address, server_pid, server_version, seconds);
    insert into postgear.batch (lease) values (register_server.lease);
    select name into queue_name from postgear.queue;
end
$$;
