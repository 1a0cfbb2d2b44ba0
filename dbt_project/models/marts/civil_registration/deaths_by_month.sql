-- By the month in which the death was registered, as the bureau counts; the area is where the person died.
with deaths as (

    select
        left(tambon_code, 4) as district_code,
        sex,
        cause_group,
        {{ month_of('registered_on') }} as month
    from {{ ref('stg_death_event') }}

),

counts as (

    select
        month,
        district_code,
        sex,
        cause_group,
        count(*) as deaths
    from deaths
    group by month, district_code, sex, cause_group

),

final as (

    select
        -- ids
        district_code,
        left(district_code, 2) as province_code,
        sex,
        cause_group,

        -- numbers
        deaths,

        -- dates
        month,
        {{ fiscal_year('month') }} as fiscal_year,
        {{ fiscal_quarter('month') }} as fiscal_quarter
    from counts

)

select * from final
