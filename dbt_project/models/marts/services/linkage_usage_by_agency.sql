with usage as (

    select
        agency,
        service,
        calls,
        usage_date,
        {{ month_of('usage_date') }} as month
    from {{ ref('stg_linkage_usage') }}

),

totals as (

    select
        month,
        agency,
        service,
        sum(calls)::bigint as calls,
        count(distinct usage_date) filter (where calls > 0) as days_used,
        max(calls) as most_calls_in_a_day
    from usage
    group by month, agency, service

),

final as (

    select
        -- ids
        agency,
        service,

        -- numbers
        calls,
        days_used,
        most_calls_in_a_day,

        -- dates
        month,
        {{ fiscal_year('month') }} as fiscal_year
    from totals

)

select * from final
