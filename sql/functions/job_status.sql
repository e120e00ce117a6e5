create or replace function postgear.job_status(
    job_id bigint default null,
    key bytea default null,
    out id bigint, out running boolean, out numerator bigint, out denominator bigint
) returns record
language sql
stable
as $$
-- Return one job by its id or else by its unique key (of any function); all null: there is none.
--
-- running: a server holds it.  Called by: servers (GET_STATUS, GET_STATUS_UNIQUE), handle_status.  Tables: job (reads).
select id, lease is not null, coalesce(progress_numerator, 0), coalesce(progress_denominator, 0)
from postgear.job
where id = job_id
union all
select job.id, lease is not null, coalesce(progress_numerator, 0), coalesce(progress_denominator, 0)
from postgear.function
join postgear.job on job.function_id = function.id and job.unique_key = key
limit 1
$$;
