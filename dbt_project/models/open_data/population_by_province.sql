with population as (

    select * from {{ ref('population_by_area') }}
    where level = 'province'

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        population.month::date as month,
        population.fiscal_year::integer as fiscal_year,
        population.province_code::text as province_code,
        areas.name_th::text as province_name_th,
        areas.name_en::text as province_name_en,
        population.male::bigint as male,
        population.female::bigint as female,
        population.total::bigint as total,
        population.houses::bigint as houses
    from population
    left join areas on population.province_code = areas.area_code

)

select * from final
