with complaints as (

    select
        month,
        fiscal_year,
        topic,
        status,
        sum(cases)::bigint as cases
    from {{ ref('complaints_by_topic') }}
    group by month, fiscal_year, topic, status

),

final as (

    select
        month::date as month,
        fiscal_year::integer as fiscal_year,
        topic::text as topic,
        status::text as status,
        cases::bigint as cases
    from complaints

)

select * from final
