with deaths as (

    select
        month,
        fiscal_year,
        province_code,
        cause_group,
        sum(deaths)::bigint as deaths
    from {{ ref('deaths_by_month') }}
    group by month, fiscal_year, province_code, cause_group

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
        deaths.cause_group::text as cause_group,
        deaths.deaths::bigint as deaths
    from deaths
    left join areas on deaths.province_code = areas.area_code

)

select * from final
