create or replace function gman_result(handle text)
returns table (outcome text, result bytea, finished_at timestamptz)
language plpgsql
stable
strict
as $$
-- Return how a background job has ended, in one row; none where it has not, or nothing is kept of it (any more), or it never was.
--
-- Kept is what postgear.keep_results asks for, by function, in the queue of this database: it is asked also when servers are
-- set, for Gearman has no such question.
-- outcome: completed or failed. result: the data of WORK_COMPLETE (not of WORK_DATA), the text of WORK_EXCEPTION, else null;
-- null, too, where that was over 256 MB.
begin
    return query
    select kept.outcome, kept.result, kept.finished_at from postgear.handle_result(gman_result.handle) as kept;
end
$$;
comment on function gman_result(text) is 'postgear: how a background job (handle) has ended: outcome, result, time';
