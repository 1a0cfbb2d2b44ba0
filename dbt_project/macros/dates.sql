{#- Thai calendar and fiscal year, as PostgreSQL expressions. -#}

{#- Fiscal year (B.E.) of a date: 1 October to 30 September, named after the Buddhist-era year in which it ends. -#}
{% macro fiscal_year(day) -%}
    (extract(year from {{ day }} + interval '3 months')::integer + 543)
{%- endmacro %}


{#- Quarter of the fiscal year, 1 to 4; quarter 1 is October to December. -#}
{% macro fiscal_quarter(day) -%}
    extract(quarter from {{ day }} + interval '3 months')::integer
{%- endmacro %}


{#- Buddhist-era year of a date. Until B.E. 2483 (C.E. 1940) the year began on 1 April, so that January to March
    still belonged to the year before. -#}
{% macro be_year(day) -%}
    (
        extract(year from {{ day }})::integer
        + case when {{ day }} < date '1941-01-01' and extract(month from {{ day }}) < 4 then 542 else 543 end
    )
{%- endmacro %}


{#- First day of the month of a date. -#}
{% macro month_of(day) -%}
    date_trunc('month', {{ day }}::timestamp)::date
{%- endmacro %}


{#- The day from which age is counted, where part of a birth date is unknown: the first of a known month, or else the
    first day of the calendar year (Civil and Commercial Code, section 16); that day was 1 April until C.E. 1940.
    Null when even the year is unknown. -#}
{% macro age_counts_from(birth_date, birth_year, birth_month) -%}
    coalesce(
        {{ birth_date }},
        make_date(
            {{ birth_year }}::integer,
            coalesce({{ birth_month }}::integer, case when {{ birth_year }} <= 1940 then 4 else 1 end),
            1
        )
    )
{%- endmacro %}


{#- Completed years of age on a day; who is born on 29 February completes a year on 1 March of a common year. -#}
{% macro age_at(birth_date, day) -%}
    extract(year from age({{ day }}, {{ birth_date }}))::integer
{%- endmacro %}


{#- Band of five years as sortable text: 00-04, 05-09 … 95-99, 100+; `unknown` without an age. -#}
{% macro age_band(age) -%}
    (
        case
            when {{ age }} is null then 'unknown'
            when {{ age }} >= 100 then '100+'
            else lpad(({{ age }} / 5 * 5)::text, 2, '0') || '-' || lpad(({{ age }} / 5 * 5 + 4)::text, 2, '0')
        end
    ) collate "C"
{%- endmacro %}


{#- Today in Thailand, unless the variable as_of says another day. -#}
{% macro as_of_date() -%}
    {%- if var('as_of') -%}
        date '{{ var("as_of") }}'
    {%- else -%}
        (now() at time zone 'Asia/Bangkok')::date
    {%- endif -%}
{%- endmacro %}
