create or replace function postgear.trigger_key_varies(of_type oid) returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
-- Say whether the text of a type's values depends on settings of the session, as TimeZone or bytea_output, and their binary form
-- does not; also within arrays, domains, ranges and composite types.
--
-- The binary form of text depends on client_encoding, and fails where that lacks a character: what has both is false.
-- Types of extensions are taken to have one text.  Called by: trigger_key.  Tables: none but the catalog.
with recursive part (type) as (
    select of_type
    union
    select inner_type
    from part
    join pg_type on pg_type.oid = part.type
    cross join lateral (
        select typbasetype
        union all
        select typelem
        union all
        select rngsubtype from pg_range where pg_type.oid in (rngtypid, rngmultitypid)
        union all
        select atttypid from pg_attribute where typrelid <> 0 and attrelid = typrelid and attnum > 0 and not attisdropped
    ) as within (inner_type)
)
select exists (
    select
    from part
    join pg_type on pg_type.oid = part.type
    -- Json has dates as ISO 8601 whatever DateStyle is, but not within ranges, which are strings there.
    where typtype in ('r', 'm') or pg_type.oid = any (array[
        'timestamptz', 'interval', 'bytea', 'money', 'float4', 'float8', 'path', 'polygon', 'circle'
    ]::regtype[]::oid[])
) and not exists (
    select
    from part
    join pg_type on pg_type.oid = part.type
    where typcollation <> 0 or typtype = 'e' or typsend = 0 or pg_type.oid = any (array['json', 'jsonb', 'xml']::regtype[]::oid[])
)
$$;
