create or replace function postgear.finish_with_results(
    holder bigint, ids bigint[], completed boolean[], results bytea[], delivery smallint default null
) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
-- Do what finish_jobs does, and keep how the deleted jobs have ended, where their function wants it: nothing is kept of a job
-- that holder does not hold.
--
-- ids: each once. completed: else failed. results: null where there is none. delivery: only a job given out as this attempt.
-- Called by: servers and workers straight on the database, for functions that keep results; in the transaction of a
-- transactional handler with its delivery, as complete_job.  Tables: job (deletes), result (inserts), function (reads).
declare
    ended_at timestamptz := clock_timestamp();
    finished bigint[];
begin
    with deleted as (
        delete from postgear.job
        where job.id = any (ids) and job.lease is not distinct from coalesce(holder, 0)  -- see finish_jobs
          and (delivery is null or job.attempt = delivery)
        returning job.id, job.function_id
    ), kept as (
        insert into postgear.result (job_id, function_id, outcome, result, finished_at, expires_at)
        select deleted.id, deleted.function_id, case when ended.completed then 'completed' else 'failed' end, ended.result,
            ended_at, ended_at + function.keep_results
        from deleted
        join unnest(ids, completed, results) as ended (id, completed, result) on ended.id = deleted.id
        join postgear.function on function.id = deleted.function_id
        where function.keep_results is not null
        -- Ids come again after TRUNCATE ... RESTART IDENTITY, and an error here would be met for ever.
        on conflict (job_id) do update
        set function_id = excluded.function_id, outcome = excluded.outcome, result = excluded.result,
            finished_at = excluded.finished_at, expires_at = excluded.expires_at
    )
    select array_agg(deleted.id) into finished from deleted;
    return (
        select array_agg(asked.id)
        from unnest(ids) as asked (id)
        where asked.id not in (select done.id from unnest(finished) as done (id))
    );
end
$$;
