create or replace function postgear.register_worker(
    worker_name text, worker_host text, worker_pid integer, worker_version text, seconds double precision, names bytea[],
    out lease bigint, out queue_name text
) returns record
language plpgsql
as $$
-- Start the lease of a worker that claims for itself, as register_server does for a server. It has no address.
--
-- names: the functions that it can do, for people to see.
-- Called by: workers straight on the database, once a start.  Tables: server (inserts), queue (reads).
begin
    select started.lease, started.queue_name into register_worker.lease, register_worker.queue_name
    from postgear.register_server(worker_name, '', worker_pid, worker_version, seconds) as started;
    update postgear.server
    set kind = 'worker', host = worker_host, functions = names
    where server.lease = register_worker.lease;
end
$$;
