create or replace function postgear.claim_jobs(
    holder bigint,
    function_ids integer[],
    priorities smallint[],
    wanted integer[],
    max_bytes bigint,
    max_jobs integer default null
) returns table (id bigint, function_id integer, priority smallint, attempt smallint,
    unique_key bytea, reducer bytea, workload bytea)
language sql
as $$
-- Claim queued jobs for a server: for each lane (function, priority) up to wanted jobs, oldest first, and up to
-- max_bytes of workload altogether (but always one job when there is any), and up to max_jobs: the lanes stand in the order
-- of their priority, and those after the one that reached that number are not looked at.
--
-- A key that is for queued jobs only (until_claimed) goes with the claim.
-- Claims nothing when holder is no registered server: its lease was reaped.
-- Skips jobs that another claim is taking.  Called by: servers.  Tables: job (updates), server (reads).
with candidate as materialized (
    select picked.id, octet_length(picked.workload) as size_bytes, lane.priority, lane.place
    from unnest(function_ids, priorities, wanted) with ordinality as lane (function_id, priority, wanted, place)
    cross join lateral (
        select queued.id, queued.workload
        from postgear.job queued
        -- Row comparisons, not equalities: with those the planner may walk the primary key through the whole backlog, for it
        -- then has the order, too; only job_queued_idx has this one.
        where (queued.function_id, queued.priority, queued.id) >= (lane.function_id, lane.priority, 0::bigint)
          and (queued.function_id, queued.priority, queued.id) < (lane.function_id, (lane.priority + 1)::smallint, 0::bigint)
          and queued.lease is null
          and queued.run_at is null
        order by queued.function_id, queued.priority, queued.id
        limit lane.wanted
        for update skip locked
    ) picked
    where exists (select from postgear.server where lease = holder)
    limit max_jobs
),
sized as (
    select candidate.id, sum(candidate.size_bytes) over (order by priority, place, candidate.id) - candidate.size_bytes as bytes_before
    from candidate
),
claimed as (
    update postgear.job
    set lease = holder,
        attempt = least(job.attempt, 32766) + 1,
        unique_key = case when not job.until_claimed then job.unique_key end
    where job.id in (select sized.id from sized where bytes_before < max_bytes)
    returning job.id, job.function_id, job.priority, job.attempt, job.unique_key, job.reducer, job.workload
)
select * from claimed order by priority, id
$$;
