{#- A condition that is false for no row; a null condition passes. -#}
{% test holds(model, condition) %}

    select *
    from {{ model }}
    where not ({{ condition }})

{% endtest %}
