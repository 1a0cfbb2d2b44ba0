{#- No two rows share the values of these columns, nulls counted as equal, and none of `required` is null. -#}
{% test unique_key(model, columns, required=none) %}

    select
        {{ columns | join(', ') }},
        count(*) as rows_of_key
    from {{ model }}
    group by {{ columns | join(', ') }}
    having count(*) > 1
    {%- for column in (columns if required is none else required) %}
        or {{ column }} is null
    {%- endfor %}

{% endtest %}
