{#- Lineage is part of the write: this post-hook of every model, seed and snapshot runs in its own transaction, so that the
    record and the rows commit together, also when dbt is run by hand. The server adds transaction, user and time, and finds
    the latest write of each input.

    Beside the compiled SQL and its checksum, the code is the git commit in DOPA_GIT_COMMIT, which `dopa` sets; dbt cannot ask git.

    The run is DOPA_RUN_ID (the run of `dopa` or Dagster that started dbt; its parent, if any, DOPA_PARENT_RUN_ID), or
    else dbt's own invocation. DOPA_ACTOR, which `dopa` sets too, is who started it; of a dbt by hand only the role is known. A
    view holds no rows of its own: its rows_out is null.

    A seed is made of its file: that is what it reads, and its checksum, as dbt takes it (of the text without blanks at its ends),
    is that of the code. Of a snapshot, what its own columns are made of is recorded; of it and of an incremental
    model, whether the table was there before and keeps what it held: the type of its rows is as old as the table.

    All of it goes as one literal: every call of a macro costs dbt a new module, more than the server needs for the record. -#}
{% macro record_write() -%}
    {%- if execute and flags.WHICH in work_commands() -%}
    {%- set holds_rows = model.config.materialized not in ('view', 'ephemeral') -%}
    {%- set is_seed = model.resource_type == 'seed' -%}
    {%- set code = {
        'unique_id': model.unique_id,
        'path': model.original_file_path,
        'git_commit': env_var('DOPA_GIT_COMMIT', '') or none,
        'git_changed': true if env_var('DOPA_GIT_COMMIT', '') and env_var('DOPA_GIT_CHANGED', '') == '1' else none
    } -%}
    {%- if is_seed -%}
        {%- do code.update({'checksum': model.checksum.checksum, 'fields': load_agate_table().column_names | list}) -%}
    {%- else -%}
        {%- do code.update({'compiled': (model.get('compiled_code') or '') | trim}) -%}
    {%- endif -%}
    {%- if model.resource_type == 'snapshot' -%}{%- do code.update({'snapshot': snapshot_of(model)}) -%}{%- endif -%}
    {%- set told = {
        'target': this.schema ~ '.' ~ this.identifier,
        'run': work_run(),
        'parent': env_var('DOPA_PARENT_RUN_ID', '') or none,
        'code': code,
        'version': model.checksum.checksum,
        'inputs': inputs_of(model),
        'detail': {
            'materialized': model.config.materialized,
            'file': 'dbt_project/' ~ model.original_file_path if is_seed else none,
            'dbt_version': dbt_version,
            'invocation_id': invocation_id,
            'work': work_id(model.unique_id),
            'actor': env_var('DOPA_ACTOR', '') or none,
            'said': said_of(model)
        },
        'environment': target.name
    } %}
    select lineage.record_write(
        'model',
        told ->> 'target',
        told ->> 'run',
        told ->> 'parent',
        jsonb_strip_nulls(told -> 'code')
        {%- if not is_seed %} || jsonb_build_object(
            'checksum', encode(sha256(convert_to(told #>> '{code,compiled}', 'UTF8')), 'hex')
        ){% endif %},
        told ->> 'version',
        told -> 'inputs',
        {% if is_seed %}(select count(*) from {{ this }}){% else %}null{% endif %},
        {% if holds_rows %}(select count(*) from {{ this }}){% else %}null{% endif %},
        jsonb_strip_nulls(told -> 'detail')
        {%- if model.config.materialized in ('incremental', 'snapshot') %} || jsonb_build_object(
            'kept',
            (select t.xmin <> pg_current_xact_id()::xid from pg_type as t where t.typrelid = {{ quoted(this) }}::regclass)
        ){% endif %},
        told ->> 'environment'
    )
    from (select {{ quoted(tojson(told)) }}::jsonb) as it (told);
    {%- endif -%}
{%- endmacro %}


{#- What the yml of a node says that its columns are: classification, and what they make coarser (docs/classification.md). A
    release is judged by what was said when its tables were built. -#}
{% macro said_of(node) -%}
    {%- set found = {} -%}
    {%- for name, column in node.columns.items() -%}
        {%- set meta = (column.get('config') or {}).get('meta') or column.get('meta') or {} -%}
        {%- set kept = {} -%}
        {%- for key in ('classification', 'pdpa_role', 'generalises') if key in meta -%}
            {%- do kept.update({key: meta[key]}) -%}
        {%- endfor -%}
        {%- if kept -%}{%- do found.update({name: kept}) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}


{#- What a node reads, as lineage.write has it; a seed its file. -#}
{% macro inputs_of(node) -%}
    {%- set inputs = [] -%}
    {%- if node.resource_type == 'seed' -%}
        {%- do inputs.append({'namespace': 'file', 'name': 'dbt_project/' ~ node.original_file_path}) -%}
    {%- endif -%}
    {%- for input in nodes_read(node) -%}
        {%- do inputs.append({'name': input.schema ~ '.' ~ (input.get('identifier') or input.alias)}) -%}
    {%- endfor -%}
    {{ return(inputs) }}
{%- endmacro %}


{#- What a snapshot's own columns are called and made of: see dbt's macros/materializations/snapshots. -#}
{% macro snapshot_of(node) -%}
    {{ return({
        'strategy': node.config.get('strategy'),
        'unique_key': node.config.get('unique_key'),
        'updated_at': node.config.get('updated_at'),
        'check_cols': node.config.get('check_cols'),
        'hard_deletes': node.config.get('hard_deletes'),
        'columns': config.get('snapshot_table_column_names') or get_snapshot_table_column_names()
    }) }}
{%- endmacro %}


{#- Pre-hook outside a transaction, which begins the model's own as one that sees a single moment: the inputs recorded are the
    inputs read, also when a load commits while the model is built.

    It begins the transaction itself: dbt-postgres leaves that to psycopg2, which takes the `commit` that dbt sends before such
    hooks for a statement like any other and begins none afterwards.

    What is read is locked (against being replaced, not against readers or writers of rows) before the snapshot is taken. A load
    that replaces a table whole, waited for afterwards, would leave the snapshot without a row of it. A view reads nothing when it
    is made. -#}
{% macro begin_snapshot() -%}
    begin isolation level repeatable read
    {%- if execute and model.config.materialized != 'view' -%}
        {%- set names = [] -%}
        {%- for input in nodes_read(model) -%}
            {%- do names.append(adapter.quote(input.schema) ~ '.' ~ adapter.quote(input.get('identifier') or input.alias)) -%}
        {%- endfor -%}
        {%- if names -%}
            ; lock table {{ names | unique | sort | join(', ') }} in access share mode
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{#- The tables and views that a node reads, as nodes of the graph; those of an ephemeral model instead of it. -#}
{% macro nodes_read(node) -%}
    {%- set found = [] -%}
    {#- A seed depends on macros only. -#}
    {%- for unique_id in (node.depends_on.nodes if node.resource_type != 'seed' else []) -%}
        {%- set input = graph.sources.get(unique_id) or graph.nodes.get(unique_id) -%}
        {%- if input and input.get('config', {}).get('materialized') == 'ephemeral' -%}
            {%- do found.extend(nodes_read(input)) -%}
        {%- elif input -%}
            {%- do found.append(input) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}


{#- A text literal that holds whatever the text holds: dollar quotes whose tag is made from the text. -#}
{% macro quoted(text) -%}
    {%- set tag = '$t' ~ local_md5(text | string) ~ '$' -%}
    {{ tag }}{{ text }}{{ tag }}
{%- endmacro %}
