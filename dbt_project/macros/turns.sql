{#- Two dbt processes at once take turns, one line for each target (an engineer's `dev` waits for nobody else's).

    dbt closes its connection after the on-run-start hooks, and reads which relations exist before them: an advisory
    lock of a session would be gone at once, and the list of relations could be stale. So a turn is a row of
    ops.dbt_turn, taken before the relations are listed (below: postgres__list_schemas, which `run` and `build` call
    first) and, for `test`, in on-run-start; on-run-end gives it back.

    That its holder still lives is seen in pg_stat_activity: all statements of a dbt carry its invocation id (see
    query-comment in dbt_project.yml). Between two nodes there is none for a moment, so a holder counts as gone only after 15 seconds
    without any.

    DOPA_DBT_TURN names a turn that outlasts one dbt: whoever starts dbt several times (`dopa`, a Dagster run) opens a
    connection of its own, of the same role, with application_name `dbt <turn>`, and closes it when it has finished.
    Such a turn ends with that connection, at once, also when its owner was killed. -#}
{% macro take_turn() -%}
    {%- if execute -%}
do $turn$
declare
    wanted_line constant text := {{ quoted(turn_line()) }};
    wanted_turn constant text := {{ quoted(turn_name()) }};
    keeper integer;
    held record;
    absent_turn text;
    absent_since timestamptz;
begin
    {%- if env_var('DOPA_DBT_TURN', '') %}
    select activity.pid into keeper
    from pg_stat_activity as activity
    where activity.application_name = 'dbt ' || wanted_turn
        and activity.pid <> pg_backend_pid()
    order by activity.backend_start
    limit 1;
    if keeper is null then
        raise exception 'DOPA_DBT_TURN is %, but no connection with the application_name "dbt %" is open; open one or unset it',
            wanted_turn, wanted_turn;
    end if;
    {%- endif %}
    loop
        -- No `do update`: that would lock the holder's row while we wait.
        insert into ops.dbt_turn (line, turn, keeper_pid, taken_at)
        values (wanted_line, wanted_turn, keeper, clock_timestamp())
        on conflict (line) do nothing;
        exit when found or exists (select from ops.dbt_turn where line = wanted_line and turn = wanted_turn);

        perform pg_stat_clear_snapshot();
        select
            dbt_turn.turn,
            dbt_turn.keeper_pid,
            exists (
                select from pg_stat_activity as activity
                where case
                    when dbt_turn.keeper_pid is null then position('dbt ' || dbt_turn.turn in activity.query) > 0
                    else activity.pid = dbt_turn.keeper_pid
                        and activity.application_name = 'dbt ' || dbt_turn.turn
                end
            ) as lives
        into held
        from ops.dbt_turn
        where dbt_turn.line = wanted_line;

        if not found then
            continue;
        elsif held.lives or held.turn is distinct from absent_turn then
            absent_turn := held.turn;
            absent_since := clock_timestamp();
        end if;
        if not held.lives
            and (held.keeper_pid is not null or clock_timestamp() - absent_since > interval '15 seconds')
        then
            delete from ops.dbt_turn where dbt_turn.line = wanted_line and dbt_turn.turn = held.turn;
        else
            perform pg_sleep(0.1);
        end if;
    end loop;
end
$turn$;
commit
    {%- endif -%}
{%- endmacro %}


{#- Gives the turn back, unless it has a keeper and so ends with that. -#}
{% macro end_turn() -%}
    {%- if execute -%}
delete from ops.dbt_turn
where line = {{ quoted(turn_line()) }} and turn = {{ quoted(turn_name()) }} and keeper_pid is null;
commit
    {%- endif -%}
{%- endmacro %}


{% macro turn_line() -%}
    {{ target.name if target.name == 'production' else developer_prefix() }}
{%- endmacro %}


{% macro turn_name() -%}
    {{ env_var('DOPA_DBT_TURN', '') or invocation_id }}
{%- endmacro %}


{#- dbt's own macro of this name, after taking the turn: it is the first thing that `run` and `build` ask the server. -#}
{% macro postgres__list_schemas(database) -%}
    {%- call statement('holder', fetch_result=True, auto_begin=False) -%}
        select taken_at from ops.dbt_turn
        where line = {{ quoted(turn_line()) }} and turn <> {{ quoted(turn_name()) }}
    {%- endcall -%}
    {%- for row in load_result('holder').table.rows -%}
        {%- do log('Waiting for the dbt whose turn it has been since ' ~ row[0], info=true) -%}
    {%- endfor -%}
    {%- call statement('turn', auto_begin=False) -%}
        {{ take_turn() }}
    {%- endcall -%}
    {%- call statement('list_schemas', fetch_result=True, auto_begin=False) -%}
        select distinct nspname from pg_namespace
    {%- endcall -%}
    {{ return(load_result('list_schemas').table) }}
{%- endmacro %}
