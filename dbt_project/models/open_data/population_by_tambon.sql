with population as (

    select * from {{ ref('population_by_area') }}
    where level = 'tambon'

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        population.month::date as month,
        population.fiscal_year::integer as fiscal_year,
        population.area_code::text as tambon_code,
        areas.name_th::text as tambon_name_th,
        areas.name_en::text as tambon_name_en,
        left(population.area_code, 4)::text as district_code,
        areas.district_name_th::text as district_name_th,
        areas.district_name_en::text as district_name_en,
        population.province_code::text as province_code,
        areas.province_name_th::text as province_name_th,
        areas.province_name_en::text as province_name_en,
        population.male::bigint as male,
        population.female::bigint as female,
        population.total::bigint as total,
        population.houses::bigint as houses
    from population
    left join areas on population.area_code = areas.area_code

)

select * from final
