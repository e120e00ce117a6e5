create or replace view postgear.jobs as
-- Every background job for people: the function and unique as text where they are text.
select
    postgear.handle(job.id) as handle,
    encode(function.name, 'escape') as function,
    (array['high', 'normal', 'low'])[job.priority + 1] as priority,
    case when job.lease is not null then 'claimed' when job.run_at is not null then 'scheduled' else 'queued' end as state,
    job.attempt,
    case when octet_length(job.unique_key) = 65 then '-' else encode(job.unique_key, 'escape') end as unique_key,
    octet_length(job.workload) as workload_bytes,
    job.created_at,
    job.run_at,
    server.name as server,
    job.progress_numerator,
    job.progress_denominator
from postgear.job
join postgear.function on function.id = job.function_id
left join postgear.server on server.lease = job.lease;
