create or replace function postgear.trigger_owner() returns name
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Return whom a new trigger's function is to belong to, and so with whose rights it runs: the role postgear_trigger, which may
-- queue jobs and nothing else. Where it is missing, or the caller is no member of it, the caller.
--
-- Not the maker: row_to_json calls casts of the table's columns to json, which the owner of the table may have written.
-- Called by: create_trigger, trigger_check_condition.  Tables: none but the catalog.
select coalesce((select rolname from pg_roles where rolname = 'postgear_trigger' and pg_has_role(oid, 'member')), current_user)
$$;
