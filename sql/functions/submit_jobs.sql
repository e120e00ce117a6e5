create or replace function postgear.submit_jobs(
    holder bigint,
    function_ids integer[],
    priorities smallint[],
    unique_keys bytea[],
    workloads bytea[],
    run_ats bigint[] default null,
    reducers bytea[] default null,
    claims boolean[] default null,
    batch_number bigint default null,
    commit_level text default null
) returns bigint[]
language plpgsql
as $$
-- Add a batch of jobs and return one number for each: its id; or the negated id of the job with the same function and
-- unique key that it coalesced with; or 0 when the function's queue is full.
--
-- holder: the lease of the calling server, null when called from SQL.
-- unique_keys: null elements never coalesce.  run_ats: epoch seconds, null elements or past times: at once.
-- claims: true elements are born claimed by holder (and count as given out); not allowed for scheduled jobs.
-- The last three arrays may be null as a whole.
-- batch_number: recorded with the result in batch, for settle_batch; greater with each call of a lease. Raises 55000
-- (object_not_in_prerequisite_state) when the batch was settled meanwhile, or its lease ended so long ago that it has no record.
-- commit_level: a value of synchronous_commit for this transaction; null: the session's.
-- A limited function's jobs are counted once a batch, and then the jobs that the batch adds: what others add or finish meanwhile
-- does not change what this batch may add.
-- Called by: servers (group commit), submit_job.
-- Tables: job (inserts, reads), batch (updates), function (reads), server (reads).
<<this>>
declare
    ids bigint[];
    job_id bigint;
    is_claimed boolean;
    starts_at timestamptz;
    limited integer[];  -- the functions with limits, and side by side their limits by priority and how many jobs they have
    highs integer[];
    normals integer[];
    lows integer[];
    counts integer[];
    place integer;
    job_limit integer;
    has_room boolean := false;  -- known to be so
    is_wanted boolean;
    is_recorded boolean;
begin
    if commit_level is not null then
        perform set_config('synchronous_commit', commit_level, true);
    end if;
    if run_ats is not null and exists (
        select from unnest(run_ats, claims) as new (run_at, claim) where run_at > extract(epoch from now()) and claim
    ) then
        raise invalid_parameter_value using
            message = 'postgear: a scheduled job cannot be born claimed';
    end if;
    loop
        -- The usual case: room for all and no key that is there already. One statement, for each costs a tenth of the insert of a
        -- single job; ids come back in the order of the arrays, and none where some function has limits.
        begin
            with added as (
                insert into postgear.job (function_id, priority, unique_key, workload, run_at, reducer, lease, attempt)
                select function_id, priority, unique_key, workload,
                    case when run_at > extract(epoch from now()) then to_timestamp(run_at) end,
                    reducer,
                    case when claim then holder end,
                    case when claim then 1 else 0 end
                from unnest(function_ids, priorities, unique_keys, workloads, run_ats, reducers, claims)
                    as new (function_id, priority, unique_key, workload, run_at, reducer, claim)
                where has_room or not exists (
                    select from postgear.function
                    where id = any (function_ids) and coalesce(max_high, max_normal, max_low) is not null
                )
                returning id
            ),
            result as (
                select array_agg(id) as ids, min(id) as first, max(id) as last, count(*) as jobs from added
            ),
            recorded as (
                update postgear.batch
                set number = batch_number,
                    ids = case when last - first + 1 = jobs then array[first, null, jobs] else result.ids end,
                    updated_at = now()
                from result
                where lease = holder and number < batch_number and result.ids is not null
                returning lease
            )
            select result.ids, exists (select from postgear.server where sleeping), exists (select from recorded)
            into ids, is_wanted, is_recorded
            from result;
        exception when unique_violation then
            has_room := true;  -- as far as is known; some key is there already: again, job by job
        end;
        if ids is not null then
            if batch_number is not null and not is_recorded then
                raise object_not_in_prerequisite_state using
                    message = format('postgear: batch %s of lease %s is over', batch_number, holder);
            end if;
            if is_wanted and not coalesce(true = all (claims), false) then
                perform postgear.wake_servers();
            end if;
            return ids;
        end if;
        exit when has_room;

        select array_agg(id), array_agg(max_high), array_agg(max_normal), array_agg(max_low),
            array_agg(postgear.count_up_to(id, greatest(max_high, max_normal, max_low)))
        into limited, highs, normals, lows, counts
        from postgear.function
        where id = any (function_ids) and coalesce(max_high, max_normal, max_low) is not null;
        -- Where the whole batch fits under the lowest limit of each, no job of it can be refused.
        select coalesce(bool_and(present + cardinality(array_positions(function_ids, id)) <= least(high, normal, low)), true)
        into has_room
        from unnest(limited, highs, normals, lows, counts) as bound (id, high, normal, low, present);
        exit when not has_room;
    end loop;

    for i in 1 .. cardinality(function_ids) loop
        is_claimed := coalesce(claims[i], false);
        starts_at := case when run_ats[i] > extract(epoch from now()) then to_timestamp(run_ats[i]) end;
        place := array_position(limited, function_ids[i]);
        job_limit := case priorities[i] when 0 then highs[place] when 1 then normals[place] else lows[place] end;
        job_id := null;
        loop
            if unique_keys[i] is not null then
                select -id into job_id from postgear.job
                where function_id = function_ids[i] and unique_key = unique_keys[i];
                exit when found;
            end if;
            if counts[place] >= job_limit then
                job_id := 0;
                exit;
            end if;
            insert into postgear.job (function_id, priority, unique_key, workload, run_at, reducer, lease, attempt)
            values (function_ids[i], priorities[i], unique_keys[i], workloads[i], starts_at, reducers[i],
                case when is_claimed then holder end, case when is_claimed then 1 else 0 end)
            on conflict (function_id, unique_key) where unique_key is not null do nothing
            returning id into job_id;
            if found then
                if place is not null then
                    counts[place] := counts[place] + 1;
                end if;
                exit;
            end if;
            -- The key appeared between the two statements; it may be gone again at the next look.
        end loop;
        ids[i] := job_id;
    end loop;
    if batch_number is not null then
        update postgear.batch set number = batch_number, ids = this.ids, updated_at = now()
        where lease = holder and number < batch_number;
        if not found then
            raise object_not_in_prerequisite_state using
                message = format('postgear: batch %s of lease %s is over', batch_number, holder);
        end if;
    elsif 0 > any (ids) then
        -- A commit that wrote nothing waits for no standby, but the job it names may be one that the standby does not have yet: a
        -- cancelled wait or a restart shows such a job to all. What comes before this record is there when this record is.
        perform pg_logical_emit_message(true, 'postgear', '');
    end if;
    perform postgear.wake_servers();
    return ids;
end
$$;
