create or replace function postgear.relay_jobs(
    of_relay integer,
    holder_generation bigint,
    settled_batch bigint,
    ids bigint[],
    times bigint[],
    function_names bytea[],
    workloads bytea[],
    unique_keys bytea[],
    priorities smallint[],
    run_ats bigint[],
    until_claimed boolean[],
    out batch_number bigint,
    out refused bigint[]
) returns record
language plpgsql
as $$
-- Store rows of an outbox as jobs, in their order, and record in the same transaction that it was done. Rows that are recorded
-- already are left out; the caller may delete all but those refused.
--
-- settled_batch: the last batch whose rows the caller knows to be deleted.  ids, times: which rows, ids ascending, and their
-- created_at in microseconds.  unique_keys: coalescing keys, null or as submit_jobs has them; with until_claimed the key of submit_coalesced.
-- refused: ids of rows whose function's queue is full, null: none.
-- Raises 55000 (object_not_in_prerequisite_state) when another relay has taken over.
-- Called by: relays.  Tables: relay (updates), relayed (inserts, deletes), else as submit_jobs and submit_coalesced.
declare
    known_batches bigint[];
    function_ids integer[];
    job_ids bigint[];
    start integer := 1;
    stop integer;
    is_limited boolean;
begin
    update postgear.relay
    set batch = batch + 1, settled = greatest(settled, settled_batch), renewed_at = clock_timestamp()
    where id = of_relay and generation = holder_generation
    returning batch into batch_number;
    if not found then
        raise object_not_in_prerequisite_state using message = 'postgear: another relay has taken over this outbox';
    end if;
    delete from postgear.relayed
    where relay_id = of_relay and batch <= settled_batch and stored_at < now() - interval '1 minute';

    -- Only batches with some of the ids between their lowest and highest: the last of the ids up to the highest must not be below the
    -- lowest. One row that commits late must not cost a look at a minute of records.
    select array_agg(batch) into known_batches
    from postgear.relayed
    where relay_id = of_relay and high_id >= ids[1] and ids[width_bucket(high_id, ids)] >= low_id;
    if known_batches is not null then
        with known as materialized (
            select distinct stored.row_id, stored.row_time
            from postgear.relayed, unnest(row_ids, row_times) as stored (row_id, row_time)
            where relay_id = of_relay and batch = any (known_batches)
        )
        select array_agg(row_id order by place), array_agg(row_time order by place), array_agg(name order by place),
            array_agg(workload order by place), array_agg(key order by place), array_agg(priority order by place),
            array_agg(run_at order by place), array_agg(is_until order by place)
        into ids, times, function_names, workloads, unique_keys, priorities, run_ats, until_claimed
        from unnest(ids, times, function_names, workloads, unique_keys, priorities, run_ats, until_claimed) with ordinality
            as given (row_id, row_time, name, workload, key, priority, run_at, is_until, place)
        left join known using (row_id, row_time)
        where known.row_id is null;
        if ids is null then
            return;
        end if;
    end if;

    -- Each name once, and always in one order: two transactions that use new names must not wait for each other in a circle.
    with named as materialized (
        select ordered.name, postgear.function_id(ordered.name) as id
        from (select distinct name from unnest(function_names) as given (name) order by name) ordered
    )
    select array_agg(named.id order by given.place) into function_ids
    from unnest(function_names) with ordinality as given (name, place)
    join named using (name);

    is_limited := exists (
        select from postgear.function
        where name = any (function_names) and coalesce(max_high, max_normal, max_low) is not null
    );
    -- Rows with the two kinds of keys take turns in runs, so that the order stays.
    while start <= cardinality(ids) loop
        if until_claimed[start] and not is_limited then
            -- Without the subtransaction that a limit needs: it would cost as much as the job.
            job_ids[start] := postgear.submit_coalesced(
                function_names[start], convert_from(unique_keys[start], 'UTF8'), workloads[start], priorities[start],
                to_timestamp(run_ats[start])
            );
            start := start + 1;
        elsif until_claimed[start] then
            begin
                job_ids[start] := postgear.submit_coalesced(
                    function_names[start], convert_from(unique_keys[start], 'UTF8'), workloads[start], priorities[start],
                    to_timestamp(run_ats[start])
                );
            exception when configuration_limit_exceeded then
                job_ids[start] := 0;
            end;
            start := start + 1;
        else
            stop := coalesce(array_position(until_claimed, true, start), cardinality(ids) + 1) - 1;
            job_ids := job_ids || postgear.submit_jobs(
                null, function_ids[start:stop], priorities[start:stop], unique_keys[start:stop], workloads[start:stop],
                run_ats[start:stop]
            );
            start := stop + 1;
        end if;
    end loop;

    if 0 = any (job_ids) then
        select array_agg(id order by place) filter (where job_id = 0),
            array_agg(id order by place) filter (where job_id <> 0),
            array_agg(row_time order by place) filter (where job_id <> 0)
        into refused, ids, times
        from unnest(ids, times, job_ids) with ordinality as stored (id, row_time, job_id, place);
    end if;
    if ids is not null then
        insert into postgear.relayed (relay_id, batch, low_id, high_id, row_ids, row_times)
        values (of_relay, batch_number, ids[1], ids[cardinality(ids)], ids, times);
        update postgear.relay set rows_moved = rows_moved + cardinality(ids) where id = of_relay;
    end if;
end
$$;
