{#- What was summed up is all there: `expression` over this model equals `to_expression` over another. -#}
{% test reconciles_with(model, expression, to, to_expression, where_this=none, where_to=none) %}

    with here as (

        select {{ expression }} as figure
        from {{ model }}
        {% if where_this %}where {{ where_this }}{% endif %}

    ),

    there as (

        select {{ to_expression }} as figure
        from {{ to }}
        {% if where_to %}where {{ where_to }}{% endif %}

    )

    select
        here.figure as figure_here,
        there.figure as figure_there
    from here
    cross join there
    where coalesce(here.figure, 0) <> coalesce(there.figure, 0)

{% endtest %}
