create or replace function postgear.trigger_pairs(definition postgear.trigger) returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
-- Say whether a trigger must see the old and the new version of an updated row together.
--
-- A condition with the word "old" elsewhere costs time, not truth.  Called by: trigger_rows, trigger_function.
select definition.payload = 'change' or definition.columns is not null or coalesce(definition.condition ~* E'\\mold\\M', false)
$$;
