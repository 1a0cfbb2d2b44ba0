with deaths as (

    select
        month,
        fiscal_year,
        district_code,
        province_code,
        sum(deaths)::bigint as deaths
    from {{ ref('deaths_by_month') }}
    group by month, fiscal_year, district_code, province_code

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        deaths.month::date as month,
        deaths.fiscal_year::integer as fiscal_year,
        deaths.district_code::text as district_code,
        areas.district_name_th::text as district_name_th,
        areas.district_name_en::text as district_name_en,
        deaths.province_code::text as province_code,
        areas.province_name_th::text as province_name_th,
        areas.province_name_en::text as province_name_en,
        deaths.deaths::bigint as deaths
    from deaths
    left join areas on deaths.district_code = areas.area_code

)

select * from final
