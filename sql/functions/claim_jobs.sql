create or replace function postgear.claim_jobs(
    holder bigint,
    function_ids integer[],
    priorities smallint[],
    wanted integer[],
    max_bytes bigint,
    max_jobs integer default null
) returns table (id bigint, function_id integer, priority smallint, attempt smallint,
    unique_key bytea, reducer bytea, workload bytea)
language plpgsql
as $$
-- Claim queued jobs for a lease: for each lane (function, priority) up to wanted jobs, oldest first, and up to
-- max_bytes of workload (but always one job when there is any) and max_jobs altogether, by priority and the order of the lanes:
-- those after the one that reaches max_jobs are not looked at.
--
-- A key that is for queued jobs only (until_claimed) goes with the claim.
-- Claims nothing when holder has no lease: it was reaped.
-- Skips jobs that another claim is taking.  Called by: servers, workers straight on the database.
-- Tables: job (updates), server (reads).
#variable_conflict use_column
begin
    -- PL/pgSQL, for it keeps the plan: as an SQL function it was planned with each call, which is most of a claim of few jobs.
    return query
    with candidate as materialized (
        select picked.ctid, octet_length(picked.workload) as size_bytes, row_number() over () as place
        from (
            select given.function_id, given.priority, given.wanted
            from unnest(function_ids, priorities, wanted) with ordinality as given (function_id, priority, wanted, place)
            order by given.priority, given.place
        ) lane
        cross join lateral (
            select queued.ctid, queued.workload
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
        where exists (select from postgear.server where server.lease = holder)
        limit max_jobs
    ),
    claimed as (
        update postgear.job
        set lease = holder,
            attempt = least(job.attempt, 32766) + 1,
            unique_key = case when not job.until_claimed then job.unique_key end
        -- By the place of the row, which is locked: by id, a claim cost a quarter more.
        where job.ctid = any (
            case
                when (select sum(candidate.size_bytes) from candidate) <= max_bytes then array(select candidate.ctid from candidate)
                else array(
                    select sized.ctid
                    from (
                        select candidate.ctid,
                            sum(candidate.size_bytes) over (order by candidate.place) - candidate.size_bytes as bytes_before
                        from candidate
                    ) sized
                    where sized.bytes_before < max_bytes
                )
            end
        )
        returning job.id, job.function_id, job.priority, job.attempt, job.unique_key, job.reducer, job.workload
    )
    select claimed.* from claimed order by claimed.priority, claimed.id;
end
$$;
