{#- Which schema a model is built in.

    production: the configured name as it is (staging, marts, open_data).
    any other target: dev_<user>_<name>, so that an engineer never touches production. <user> is DOPA_DEV_SCHEMA, or
    else the login name, or else `dev`. Sources are always raw. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set name = (custom_schema_name or target.schema) | trim -%}
    {%- if target.name == 'production' -%}
        {{ name }}
    {%- else -%}
        {{ developer_prefix() }}_{{ name }}
    {%- endif -%}
{%- endmacro %}


{#- dev_<user>: lower case letters, digits and _ only, short enough for an identifier of 63 bytes. -#}
{% macro developer_prefix() -%}
    {%- set user = env_var('DOPA_DEV_SCHEMA', env_var('USER', 'dev')) -%}
    dev_{{ modules.re.sub('[^a-z0-9_]', '_', user | lower)[:24] or 'dev' }}
{%- endmacro %}
