{#- Lineage is part of the write: this post-hook of every model runs in the model's own transaction, so that the record
    and the rows commit together, also when dbt is run by hand. The server adds transaction, user and time, and finds
    the latest write of each input.

    The run is DOPA_RUN_ID (the run of `dopa` or Dagster that started dbt; its parent, if any, DOPA_PARENT_RUN_ID), or
    else dbt's own invocation. A view holds no rows of its own: its rows_out is null. -#}
{% macro record_write() -%}
    {%- if execute and flags.WHICH in ('run', 'build', 'seed', 'snapshot', 'retry', 'clone') -%}
    {%- set compiled = (model.get('compiled_code') or '') | trim -%}
    {%- set holds_rows = model.config.materialized not in ('view', 'ephemeral') -%}
    {%- set inputs = inputs_of(model) %}
    select lineage.record_write(
        'model',
        {{ quoted(this.schema ~ '.' ~ this.identifier) }},
        {{ quoted(env_var('DOPA_RUN_ID', '') or invocation_id) }},
        {{ quoted(env_var('DOPA_PARENT_RUN_ID')) if env_var('DOPA_PARENT_RUN_ID', '') else 'null' }},
        jsonb_build_object(
            'unique_id', {{ quoted(model.unique_id) }},
            'path', {{ quoted(model.original_file_path) }},
            'checksum', encode(sha256(convert_to(code.compiled, 'UTF8')), 'hex'),
            'compiled', code.compiled
        ),
        {{ quoted(model.checksum.checksum) }},
        {{ quoted(tojson(inputs)) }}::jsonb,
        null,
        {% if holds_rows %}(select count(*) from {{ this }}){% else %}null{% endif %},
        jsonb_build_object(
            'materialized', {{ quoted(model.config.materialized) }},
            'dbt_version', {{ quoted(dbt_version) }},
            'invocation_id', {{ quoted(invocation_id) }},
            'work', {{ quoted(work_id(model.unique_id)) }}
        ),
        {{ quoted(target.name) }}
    )
    from (select {{ quoted(compiled) }}::text as compiled) as code
    {%- endif -%}
{%- endmacro %}


{#- What a node reads, as lineage.write has it. -#}
{% macro inputs_of(node) -%}
    {%- set inputs = [] -%}
    {%- for unique_id in node.depends_on.nodes -%}
        {%- set input = graph.sources.get(unique_id) or graph.nodes.get(unique_id) -%}
        {%- if input and input.get('config', {}).get('materialized') != 'ephemeral' -%}
            {%- do inputs.append({'name': input.schema ~ '.' ~ (input.get('identifier') or input.alias)}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(inputs) }}
{%- endmacro %}


{#- A text literal that holds whatever the text holds: dollar quotes whose tag is made from the text. -#}
{% macro quoted(text) -%}
    {%- set tag = '$t' ~ local_md5(text | string) ~ '$' -%}
    {{ tag }}{{ text }}{{ tag }}
{%- endmacro %}
