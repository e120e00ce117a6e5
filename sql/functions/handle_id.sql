create or replace function postgear.handle_id(handle text) returns bigint
language sql
stable
strict
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Return the id in a handle of this queue; null for any other text.
--
-- Called by: gman_cancel, handle_status.  Tables: queue (reads).
select case when handle ~ '^H:[!-~]+:[1-9][0-9]{0,17}$' and starts_with(handle, 'H:' || name || ':')
    then substring(handle from '[0-9]+$')::bigint end
from postgear.queue
$$;
