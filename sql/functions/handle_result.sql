create or replace function postgear.handle_result(handle text)
returns table (outcome text, result bytea, finished_at timestamptz)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
-- Return how a background job of this queue has ended, by its handle; no row where nothing is kept of it, or not any more.
--
-- Called by: gman_result, clients.  Tables: result (reads), as handle_id.
select kept.outcome, kept.result, kept.finished_at
from postgear.result as kept
where kept.job_id = postgear.handle_id(handle_result.handle) and kept.expires_at > now()
$$;
