-- By the month in which the death was registered; the area is where the person died, the age is that at death.
with deaths as (

    select
        left(tambon_code, 4) as district_code,
        {{ age_band('age_years') }} as age_band,
        sex,
        {{ month_of('registered_on') }} as month
    from {{ ref('stg_death_event') }}

),

counts as (

    select
        month,
        district_code,
        age_band,
        sex,
        count(*) as deaths
    from deaths
    group by month, district_code, age_band, sex

),

final as (

    select
        -- ids
        district_code,
        left(district_code, 2) as province_code,
        age_band,
        sex,

        -- numbers
        deaths,

        -- dates
        month,
        {{ fiscal_year('month') }} as fiscal_year
    from counts

)

select * from final
