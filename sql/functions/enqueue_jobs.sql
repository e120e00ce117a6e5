create or replace function postgear.enqueue_jobs(
    function_names bytea[],
    workloads bytea[],
    unique_keys bytea[] default null,
    priorities smallint[] default null,
    run_ats bigint[] default null,
    out handles text[],
    out refused integer
) returns record
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Queue a batch of jobs in the caller's transaction, all or none, and return their handles in the order of the arrays.
--
-- Where some function's queue is full nothing is queued: handles is null and refused the place (from 1) of the first job
-- that was one too many. It is no error, so that the caller's transaction can go on.
-- Elements as the parameters of submit_job; the last three arrays may be null as a whole: no uniques, normal, at once.
-- Called by: postgear.enqueue and its kin in Python.  Tables: as submit_jobs and function_id.
declare
    function_ids integer[];
    coalescing_keys bytea[];
    ids bigint[];
    wrong text;
    is_limited boolean;
begin
    handles := '{}';
    if coalesce(cardinality(function_names), 0) = 0 and coalesce(cardinality(workloads), 0) = 0 then
        return;
    end if;
    select case
            when new.name is null or new.workload is null then 'function and workload must not be null'
            when octet_length(new.name) not between 1 and 512 or octet_length(new.key) > 64
                then 'a function name has 1 to 512 bytes, a unique at most 64'
            when new.run_at > 253402300799 then 'a job cannot run after the year 9999'
            when new.priority not between 0 and 2
                then format('priority %s is none of 0 (high), 1 (normal) and 2 (low)', new.priority)
            else 'a function name or unique must not contain NUL'
        end
    into wrong
    from unnest(function_names, workloads, unique_keys, priorities, run_ats) as new (name, workload, key, priority, run_at)
    where new.name is null or new.workload is null
        or octet_length(new.name) not between 1 and 512
        or octet_length(new.key) > 64
        or new.priority not between 0 and 2
        or new.run_at > 253402300799
        or position(decode('00', 'hex') in new.name) > 0
        or position(decode('00', 'hex') in new.key) > 0
    limit 1;
    if found then
        raise invalid_parameter_value using message = 'postgear: ' || wrong;
    end if;

    is_limited := exists (
        select from postgear.function
        where name = any (function_names) and coalesce(max_high, max_normal, max_low) is not null
    );
    if cardinality(function_names) = 1 and not is_limited then
        -- In half the time of what follows.
        handles := array[postgear.queue_job(
            function_names[1], workloads[1], unique_keys[1], coalesce(priorities[1], 1::smallint), to_timestamp(run_ats[1])
        )];
        return;
    end if;

    -- Each name once, and always in one order: two transactions that use new names must not wait for each other in a circle.
    with named as materialized (
        select ordered.name, postgear.function_id(ordered.name) as id
        from (select distinct name from unnest(function_names) as given (name) order by name) ordered
    )
    select
        array_agg(named.id order by new.place),
        array_agg(
            case
                when new.key = '-' then case when new.workload <> '' then '-'::bytea || sha512(new.workload) end
                else nullif(new.key, '')
            end
            order by new.place
        ),
        array_agg(coalesce(new.priority, 1::smallint) order by new.place)
    into function_ids, coalescing_keys, priorities
    from unnest(function_names, workloads, unique_keys, priorities) with ordinality as new (name, workload, key, priority, place)
    join named on named.name = new.name;

    if is_limited then
        begin
            ids := postgear.submit_jobs(null, function_ids, priorities, coalescing_keys, workloads, run_ats);
            refused := array_position(ids, 0::bigint);
            if refused is not null then
                raise configuration_limit_exceeded;  -- takes back those that were queued
            end if;
        exception when configuration_limit_exceeded then
            if refused is null then
                raise;
            end if;
            handles := null;
            return;
        end;
    else
        -- Not in a subtransaction: a transaction that enqueues often would have so many that every snapshot pays for them.
        ids := postgear.submit_jobs(null, function_ids, priorities, coalescing_keys, workloads, run_ats);
        if 0 = any (ids) then
            raise configuration_limit_exceeded using message = 'postgear: a limit was set at this moment, and is exceeded';
        end if;
    end if;
    select array_agg(postgear.handle(abs(id)) order by place) into handles
    from unnest(ids) with ordinality as queued (id, place);
end
$$;
