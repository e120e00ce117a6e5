create or replace function postgear.expire_results() returns boolean
language sql
as $$
-- Delete kept results whose time is over, at most 50 a call, for each may have many pages; true: there may be more.
--
-- now(), not clock_timestamp(): only a stable one is looked up in the index.
-- Called by: every server, every ten seconds; the skipped rows are being deleted by another.  Tables: result (deletes).
with expired as (
    delete from postgear.result
    where job_id in (
        select job_id from postgear.result
        where expires_at <= now()
        order by expires_at limit 50
        for update skip locked
    )
    returning job_id
)
select count(*) >= 50 from expired
$$;
