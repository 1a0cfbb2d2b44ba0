with births as (

    select
        month,
        fiscal_year,
        province_code,
        sex,
        sum(births)::bigint as births
    from {{ ref('births_by_month') }}
    group by month, fiscal_year, province_code, sex

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        births.month::date as month,
        births.fiscal_year::integer as fiscal_year,
        births.province_code::text as province_code,
        areas.name_th::text as province_name_th,
        areas.name_en::text as province_name_en,
        births.sex::text as sex,
        births.births::bigint as births
    from births
    left join areas on births.province_code = areas.area_code

)

select * from final
