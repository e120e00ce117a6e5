create or replace function postgear.lease_lock_class() returns integer
language sql
immutable
as $$
-- The first key of the advisory locks that prove leases alive ("gear" in ASCII).
select 1734697330
$$;
