with births as (

    select
        month,
        fiscal_year,
        province_code,
        weight_class,
        sum(births)::bigint as births
    from {{ ref('births_by_weight_class') }}
    group by month, fiscal_year, province_code, weight_class

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
        births.weight_class::text as weight_class,
        births.births::bigint as births
    from births
    left join areas on births.province_code = areas.area_code

)

select * from final
