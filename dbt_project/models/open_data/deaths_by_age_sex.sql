with deaths as (

    select
        month,
        fiscal_year,
        province_code,
        age_band,
        sex,
        sum(deaths)::bigint as deaths
    from {{ ref('deaths_by_age') }}
    group by month, fiscal_year, province_code, age_band, sex

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        deaths.month::date as month,
        deaths.fiscal_year::integer as fiscal_year,
        deaths.province_code::text as province_code,
        areas.name_th::text as province_name_th,
        areas.name_en::text as province_name_en,
        deaths.age_band::text as age_band,
        deaths.sex::text as sex,
        deaths.deaths::bigint as deaths
    from deaths
    left join areas on deaths.province_code = areas.area_code

)

select * from final
