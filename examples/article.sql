-- A table whose new rows become jobs: the demo's, and a pattern to copy.

create table if not exists article (
    id      bigint generated always as identity primary key,
    title   text not null,
    body    text not null
);

create or replace function index_article() returns trigger
language plpgsql
as $$
begin
    perform gman_do_background('index', row_to_json(new));
    return null;
end
$$;

create or replace trigger index_article
after insert on article
for each row execute function index_article();
