-- By the month in which the birth was registered, as the bureau counts; the area is where the child was born.
with births as (

    select
        left(tambon_code, 4) as district_code,
        sex,
        {{ month_of('registered_on') }} as month
    from {{ ref('stg_birth_event') }}

),

counts as (

    select
        month,
        district_code,
        sex,
        count(*) as births
    from births
    group by month, district_code, sex

),

final as (

    select
        -- ids
        district_code,
        left(district_code, 2) as province_code,
        sex,

        -- numbers
        births,

        -- dates
        month,
        {{ fiscal_year('month') }} as fiscal_year,
        {{ fiscal_quarter('month') }} as fiscal_quarter
    from counts

)

select * from final
