create or replace view postgear.jobs as
-- Every background job for people: the function and unique as text where they are text. A job of a trigger with a key
-- shows none: it is a number.
select
    postgear.handle(job.id) as handle,
    encode(function.name, 'escape') as function,
    (array['high', 'normal', 'low'])[job.priority + 1] as priority,
    case when job.lease is not null then 'claimed' when job.run_at is not null then 'scheduled' else 'queued' end as state,
    job.attempt,
    case
        when job.until_claimed then null
        when octet_length(job.unique_key) = 65 then '-'
        else encode(job.unique_key, 'escape')
    end as unique_key,
    octet_length(job.workload) as workload_bytes,
    job.created_at,
    job.run_at,
    server.name as server,
    job.progress_numerator,
    job.progress_denominator,
    trigger.name as trigger
from postgear.job
join postgear.function on function.id = job.function_id
left join postgear.server on server.lease = job.lease
left join postgear.trigger on trigger.id = job.trigger_id;

create or replace view postgear.workers as
-- The workers straight on the database, for people. jobs: those that it holds, the running ones among them. sleeping: it found
-- nothing and waits for a NOTIFY.
select
    server.lease,
    server.name,
    server.host,
    server.pid,
    server.version,
    array(select encode(function, 'escape') from unnest(server.functions) as function order by 1) as functions,
    (select count(*) from postgear.job where job.lease = server.lease) as jobs,
    server.sleeping,
    server.started_at,
    server.renewed_at
from postgear.server
where server.kind = 'worker';

create or replace view postgear.relays as
-- The outboxes in MariaDB and MySQL and how their rows come into the queue. state: working; failing: the relay cannot read the
-- outbox, or PostgreSQL refuses its rows; stopped: it has ended; silent: no relay has been heard of for as long as it may be. rows_waiting: as seen last. oldest_seconds: how far the queue
-- is behind; while nothing is moved, how far it may be: since the oldest row seen, or the last look; null: no row waits.
select
    relay.outbox,
    judged.state,
    relay.holder,
    relay.rows_waiting,
    extract(epoch from
        clock_timestamp() - coalesce(relay.oldest_at, case when judged.state <> 'working' then relay.looked_at end)
    )::double precision as oldest_seconds,
    relay.rows_per_second,
    relay.rows_moved,
    relay.rows_failed,
    relay.error,
    relay.error_at,
    relay.renewed_at,
    relay.source
from postgear.relay
cross join lateral (
    select case
        when relay.holder is null then 'stopped'
        when relay.renewed_at < now() - make_interval(secs => relay.lease_seconds) then 'silent'
        when relay.is_failing then 'failing'
        else 'working'
    end as state
) as judged;

create or replace view postgear.triggers as
-- What postgear.create_trigger made. state: as in "enable", or "disabled" or "mixed" (alter table ... disable trigger), or
-- "missing" (the trigger was dropped by other means), or "no table". jobs: those queued, scheduled or running of it.
select
    trigger.id,
    trigger.relation as "table",
    trigger.name,
    trigger.function,
    trigger.events,
    trigger.level,
    trigger.condition as "when",
    trigger.columns,
    trigger.payload,
    trigger.payload_columns,
    trigger.priority,
    trigger.delay,
    trigger.key,
    case
        when pg_class.oid is null then 'no table'
        when installed.states is null or cardinality(installed.states) < cardinality(trigger.events) then 'missing'
        when not installed.states[1] = all (installed.states) then 'mixed'
        else case installed.states[1] when 'O' then 'origin' when 'R' then 'replica' when 'A' then 'always' else 'disabled' end
    end as state,
    coalesce(counted.jobs, 0) as jobs,
    pg_get_userbyid(routine.proowner) as owner,
    trigger.created_at
from postgear.trigger
left join pg_class on pg_class.oid = trigger.relation
left join pg_proc as routine on routine.pronamespace = 'postgear_trigger'::regnamespace and routine.proname = trigger.routine
left join lateral (
    select array_agg(tgenabled) as states from pg_trigger where tgrelid = trigger.relation and tgfoid = routine.oid
) as installed on true
left join (
    select trigger_id, count(*) as jobs from postgear.job where trigger_id is not null group by trigger_id
) as counted on counted.trigger_id = trigger.id;
