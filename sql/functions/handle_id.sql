create or replace function postgear.handle_id(handle text) returns bigint
language sql
stable
strict
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Return the id in a handle of this queue; null for any other text.
--
-- Called by: gman_cancel, handle_status, handle_result.  Tables: queue (reads).
select case when starts_with(handle, prefix) and substr(handle, length(prefix) + 1) ~ '^[1-9][0-9]{0,17}$'
    then substr(handle, length(prefix) + 1)::bigint end
from (select 'H:' || name || ':' as prefix from postgear.queue) as queue
$$;
