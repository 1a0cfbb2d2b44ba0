-- By the month in which the case was received and the province that it concerns.
with cases as (

    select
        left(area_code, 2) as province_code,
        coalesce(channel, 'ไม่ระบุ' collate "C") as channel,
        {{ month_of('received_on') }} as month
    from {{ ref('stg_complaint') }}

),

counts as (

    select
        month,
        province_code,
        channel,
        count(*) as cases
    from cases
    group by month, province_code, channel

),

final as (

    select
        -- ids
        province_code,
        channel,

        -- numbers
        cases,

        -- dates
        month,
        {{ fiscal_year('month') }} as fiscal_year
    from counts

)

select * from final
