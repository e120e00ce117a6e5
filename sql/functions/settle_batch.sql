create or replace function postgear.settle_batch(holder bigint, batch_number bigint) returns bigint[]
language plpgsql
as $$
-- Say what became of a batch of submits whose answer was lost: what submit_jobs returned, or null: it is not stored and
-- never will be, for if its statement is still at work somewhere, its end waits for this one and then fails.
--
-- It always writes, so that it returns after a commit of its own: where there is a synchronous standby, that has then got
-- the batch, too. holder may be a lease that was reaped meanwhile.
-- Called by: servers, after they reconnected.  Tables: batch (updates).
declare
    stored bigint[];
begin
    update postgear.batch
    set ids = case when number = batch_number then ids end,
        number = batch_number,
        updated_at = clock_timestamp()
    where lease = holder and number <= batch_number
    returning ids into stored;
    -- No row: it went with its lease long ago, and without it nothing can be stored.
    if cardinality(stored) = 3 and stored[2] is null then
        stored := array(select generate_series(stored[1], stored[1] + stored[3] - 1));
    end if;
    return stored;
end
$$;
