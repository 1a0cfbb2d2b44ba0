{{ config(tags=['calendar']) }}

with months as (

    select generate_series(date '1990-01-01', date '2059-12-01', interval '1 month')::date as month

),

final as (

    select
        month,
        (month + interval '1 month' - interval '1 day')::date as last_day,
        extract(year from month)::integer as year,
        {{ be_year('month') }} as be_year,
        extract(month from month)::integer as month_of_year,
        {{ fiscal_year('month') }} as fiscal_year,
        {{ fiscal_quarter('month') }} as fiscal_quarter
    from months

)

select * from final
