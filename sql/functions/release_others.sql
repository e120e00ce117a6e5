create or replace function postgear.release_others(holder bigint, held bigint[]) returns bigint[]
language sql
as $$
-- After a broken connection: release the jobs that carry this lease but that the server does not know (the answer to
-- their claim or submit was lost), and return the ids of held that are no longer its own.
--
-- Called by: servers, after they reconnected.  Tables: job (updates).
with released as (
    update postgear.job
    set lease = null, progress_numerator = null, progress_denominator = null
    where lease = holder and not id = any (held)
)
select coalesce(array_agg(asked.id), '{}')
from unnest(held) as asked (id)
where not exists (select from postgear.job where job.id = asked.id and job.lease = holder)
$$;
