create or replace function postgear.trigger_check_word(parameter text, given text, allowed text[]) returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
-- Raise unless a parameter of create_trigger is one of the words allowed.
begin
    if given is null or not given = any (allowed) then
        raise invalid_parameter_value using
            message = format('postgear: %s has %L, must be one of %s', parameter, given, array_to_string(allowed, ', '));
    end if;
end
$$;
