create or replace function postgear.register_relay(
    outbox_source text, outbox_name text, holder_name text, seconds double precision,
    out relay_id integer, out relay_generation bigint, out settled_batch bigint
) returns record
language plpgsql
as $$
-- Take over an outbox unless another relay works on it; must be called on the session that the relay keeps.
--
-- relay_generation: the token for relay_jobs; null: another relay is at work. It is when it holds the advisory lock and has been
-- heard of within its own lease_seconds: one that hangs loses the outbox though its session lives, and its batches are refused.
-- outbox_name, holder_name: for people.  seconds: how long this relay may be silent.
-- Called by: relays, at each connection, and again and again by those that stand by.  Tables: relay (inserts, updates).
declare
    has_lock boolean;
begin
    select id into relay_id from postgear.relay where source = outbox_source;
    if not found then
        insert into postgear.relay (source, outbox) values (outbox_source, outbox_name) on conflict (source) do nothing;
        select id into relay_id from postgear.relay where source = outbox_source;
    end if;
    has_lock := pg_try_advisory_lock(('postgear.relay'::regclass::oid::bigint << 32) | relay_id);
    update postgear.relay
    set generation = generation + 1, holder = holder_name, outbox = outbox_name, lease_seconds = seconds, renewed_at = clock_timestamp()
    where id = relay_id and (has_lock or renewed_at < clock_timestamp() - make_interval(secs => lease_seconds))
    returning generation, settled into relay_generation, settled_batch;
end
$$;
