{#- That a model or the checks of a table began, and how they ended, outside the model's own transaction: what is rolled back is
    known too. What was written is told by record_write (macros/lineage.sql), which names the same work.

    Every model begins its work in a pre-hook before its transaction, as seeds and snapshots do; the checks of a table begin with
    the commit of its model, or of tests alone when the run starts. on-run-end ends what has no write: models that failed, and all
    checks. A dbt that is killed is found by `dopa status` and the housekeeping sensor: nobody holds its turn. -#}
{% macro begin_work() -%}
    {%- if execute and flags.WHICH in work_commands() %}
    {{ work_begins('model', this.schema ~ '.' ~ this.identifier, model.unique_id, inputs_of(model), described_model(model)) }};
    commit;
    {%- endif -%}
{%- endmacro %}


{#- Of the model that was just built: its checks begin when it commits. -#}
{% macro begin_checks() -%}
    {%- if execute and flags.WHICH == 'build' and checked(model.unique_id) %}
    {{ begin_check(model) }}
    {%- endif -%}
{%- endmacro %}


{#- Of what is only tested, not built. -#}
{% macro begin_other_checks() -%}
    {%- if execute and flags.WHICH in ('build', 'test') -%}
    {%- set others = [] -%}
    {%- for unique_id in tested_nodes() -%}
        {%- if flags.WHICH == 'test' or unique_id not in selected_resources or unique_id.startswith('source.') -%}
            {%- do others.append(graph.nodes.get(unique_id) or graph.sources.get(unique_id)) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for node in others if node %}
    {{ begin_check(node) }};
    {%- endfor -%}
    {%- if others %}
    commit
    {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{% macro begin_check(node) -%}
    {%- set table = node.schema ~ '.' ~ (node.get('identifier') or node.alias) %}
    {{ work_begins('check', table, 'check ' ~ node.unique_id, [], {'unique_id': node.unique_id, 'invocation_id': invocation_id}) }}
{%- endmacro %}


{#- One literal: see record_write. -#}
{% macro work_begins(kind, table, name, inputs, detail) -%}
    {%- set told = {
        'work': work_id(name),
        'target': table,
        'run': work_run(),
        'parent': env_var('DOPA_PARENT_RUN_ID', '') or none,
        'inputs': inputs,
        'detail': detail,
        'environment': target.name,
        'turn': turn_name()
    } -%}
    select lineage.begin_work(
        (told ->> 'work')::uuid, '{{ kind }}', told ->> 'target', told ->> 'run', told ->> 'parent', told -> 'inputs',
        told -> 'detail', told ->> 'environment', told ->> 'turn'
    )
    from (select {{ quoted(tojson(told)) }}::jsonb) as it (told)
{%- endmacro %}


{% macro end_work(results) -%}
    {%- if execute and flags.WHICH in work_commands() + ['test'] -%}
    {%- set ends, checks = [], {} -%}
    {%- for result in results -%}
        {%- set node, status = result.node, result.status | string -%}
        {%- if node.resource_type in ('model', 'seed', 'snapshot') and status in ('error', 'runtime error') -%}
            {#- One that could not even be compiled did not come as far as its pre-hook. -#}
            {{ work_begins('model', node.schema ~ '.' ~ node.alias, node.unique_id, inputs_of(node), described_model(node)) }};
            {%- do ends.append({
                'work': work_id(node.unique_id), 'state': 'FAIL',
                'detail': {'message': harmless(result.message), 'language': 'SQL'}
            }) -%}
        {%- elif node.resource_type == 'test' -%}
            {%- for unique_id in node.depends_on.nodes -%}
                {%- if unique_id not in checks -%}{%- do checks.update({unique_id: []}) -%}{%- endif -%}
                {#- A test of two tables is of a column of the one that it is written at. -#}
                {%- if status != 'skipped' -%}
                    {%- set metadata = node.get('test_metadata') if node.get else node.test_metadata -%}
                    {%- do checks[unique_id].append({
                        'assertion': metadata.name if metadata else 'custom_sql',
                        'name': node.name,
                        'success': status in ('pass', 'success'),
                        'error': harmless(result.message) if status in ('error', 'runtime error') else none,
                        'column': node.column_name if metadata and node.attached_node in (none, unique_id) else none,
                        'elsewhere': true if node.attached_node and node.attached_node != unique_id else none,
                        'severity': node.config.severity | lower,
                        'description': node.description or none,
                        'expected': '0',
                        'actual': result.failures | string if result.failures is not none else none
                    }) -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for unique_id, assertions in checks.items() -%}
        {%- set problems = assertions | selectattr('error') | map(attribute='error') | list -%}
        {%- set state = 'ABORT' if not assertions else 'FAIL' if problems else 'COMPLETE' -%}
        {%- set message = 'skipped: something that it needs failed' if not assertions else problems | first if problems else none -%}
        {%- do ends.append({
            'work': work_id('check ' ~ unique_id), 'state': state,
            'detail': {'assertions': assertions, 'message': message, 'language': 'SQL'}
        }) -%}
    {%- endfor -%}
    {%- if ends %}
    select lineage.end_work((ends.work ->> 'work')::uuid, ends.work ->> 'state', jsonb_strip_nulls(ends.work -> 'detail'))
    from jsonb_array_elements({{ quoted(tojson(ends)) }}::jsonb) as ends (work);
    commit
    {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{% macro work_commands() -%}
    {{ return(['run', 'build', 'seed', 'snapshot', 'retry', 'clone']) }}
{%- endmacro %}


{#- The id of a node's work in this invocation: a UUID of version 7 that both its beginning and its write can compute. -#}
{% macro work_id(name) -%}
    {%- set digest = local_md5(invocation_id ~ ' ' ~ name) -%}
    {%- set moment = '%012x' % ((run_started_at.timestamp() * 1000) | int) -%}
    {{ return(moment[:8] ~ '-' ~ moment[8:] ~ '-7' ~ digest[:3] ~ '-a' ~ digest[3:6] ~ '-' ~ digest[6:18]) }}
{%- endmacro %}


{#- The run of `dopa` or Dagster that started this dbt, or else dbt's own invocation. -#}
{% macro work_run() -%}
    {{ return(env_var('DOPA_RUN_ID', '') or invocation_id) }}
{%- endmacro %}


{#- What events tell of a model beside its SQL. -#}
{% macro described_model(node) -%}
    {{ return({
        'unique_id': node.unique_id,
        'invocation_id': invocation_id,
        'materialized': node.config.materialized,
        'documentation': node.description or none,
        'owner': (node.config.get('meta') or {}).get('owner'),
        'actor': env_var('DOPA_ACTOR', '') or none,
        'code': {'path': 'dbt_project/' ~ node.original_file_path}
    }) }}
{%- endmacro %}


{#- Nodes that the selected tests read. -#}
{% macro tested_nodes() -%}
    {%- set found = [] -%}
    {%- for unique_id in selected_resources if unique_id.startswith('test.') -%}
        {%- for read in graph.nodes[unique_id].depends_on.nodes if read not in found -%}
            {%- do found.append(read) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}


{% macro checked(unique_id) -%}
    {%- for test in selected_resources if test.startswith('test.') and unique_id in graph.nodes[test].depends_on.nodes -%}
        {%- if loop.first -%}{{ return(true) }}{%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{%- endmacro %}


{#- A failure without the values that PostgreSQL quotes: its first two lines, nothing quoted, no long numbers. -#}
{% macro harmless(message) -%}
    {%- set text = ((message or '') | string).strip().split('\n')[:2] | join(' ') -%}
    {%- set text = modules.re.sub('(: |=|value |for )("[^"]*"|\'[^\']*\'|[(][^)]*[)])', '\\1…', text) -%}
    {{ return(modules.re.sub('[0-9๐-๙][0-9๐-๙ -]{3,}[0-9๐-๙]', '…', text)) }}
{%- endmacro %}
