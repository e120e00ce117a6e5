create or replace function postgear.text_encoding() returns name
language sql
stable
as $$
-- Return the encoding in which text becomes the bytes of a job: UTF8, but in a database of encoding SQL_ASCII the bytes as they
-- are, for it does not know what they mean.
--
-- Called by: submit_coalesced, create_trigger.  Tables: none.
select (case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end)::name
$$;
