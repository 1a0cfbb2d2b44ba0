with births as (

    select
        month,
        fiscal_year,
        district_code,
        province_code,
        sum(births)::bigint as births
    from {{ ref('births_by_month') }}
    group by month, fiscal_year, district_code, province_code

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        births.month::date as month,
        births.fiscal_year::integer as fiscal_year,
        births.district_code::text as district_code,
        areas.district_name_th::text as district_name_th,
        areas.district_name_en::text as district_name_en,
        births.province_code::text as province_code,
        areas.province_name_th::text as province_name_th,
        areas.province_name_en::text as province_name_en,
        births.births::bigint as births
    from births
    left join areas on births.district_code = areas.area_code

)

select * from final
