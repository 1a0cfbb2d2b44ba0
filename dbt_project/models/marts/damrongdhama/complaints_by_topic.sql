-- By the month in which the case was received. Who complained, and what about in detail, stays in staging.
with cases as (

    select
        topic,
        status,
        coalesce(outcome, 'none') as outcome,
        closed_on - received_on as days_to_close,
        {{ month_of('received_on') }} as month
    from {{ ref('stg_complaint') }}

),

counts as (

    select
        month,
        topic,
        status,
        outcome,
        count(*) as cases,
        percentile_cont(0.5) within group (order by days_to_close)::numeric(10, 1) as median_days_to_close
    from cases
    group by month, topic, status, outcome

),

final as (

    select
        -- ids
        topic,
        status,
        outcome,

        -- numbers
        cases,
        median_days_to_close,

        -- dates
        month,
        {{ fiscal_year('month') }} as fiscal_year
    from counts

)

select * from final
