create or replace function postgear.trigger_check_columns(relation regclass, parameter text, names text[]) returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Raise unless all names are columns of the relation, each once; null: there is nothing to check.
--
-- Tables: pg_attribute (reads).
declare
    wrong text;
begin
    select format('%L', column_name) into wrong
    from unnest(names) as column_name
    where not exists (
        select from pg_attribute
        where attrelid = relation and attname = column_name and attnum > 0 and not attisdropped
    )
    limit 1;
    if found then
        raise undefined_column using message = format('postgear: %s: table %s has no column %s', parameter, relation, wrong);
    end if;
    if cardinality(names) > (select count(distinct column_name) from unnest(names) as column_name) then
        raise duplicate_column using message = format('postgear: %s names a column twice', parameter);
    end if;
    -- json_build_array, which makes the key, takes 100 arguments; an index as the primary key's has 32 columns.
    if parameter = 'key' and cardinality(names) > 32 then
        raise too_many_columns using message = 'postgear: a key has at most 32 columns';
    end if;
end
$$;
