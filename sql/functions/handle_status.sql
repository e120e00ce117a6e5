create or replace function postgear.handle_status(
    handle text, out known boolean, out running boolean, out numerator bigint, out denominator bigint
) returns record
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Return the state of a background job of this queue by its handle, as STATUS_RES does: unknown is all false and zero.
--
-- Called by: gman_status.  Tables: as handle_id and job_status.
begin
    select status.id is not null, coalesce(status.running, false),
        coalesce(status.numerator, 0), coalesce(status.denominator, 0)
    into known, running, numerator, denominator
    from postgear.handle_id(handle_status.handle) as job_id
    left join lateral postgear.job_status(job_id) as status on job_id is not null;
end
$$;
