with areas as (

    select * from {{ ref('dim_area') }}

),

regions as (

    select * from {{ ref('province_region') }}

),

final as (

    select
        -- ids
        areas.province_code,
        regions.region_code,

        -- names
        areas.name_th,
        areas.name_en,
        regions.region_th,
        regions.region_en
    from areas
    left join regions on areas.province_code = regions.province_code
    where areas.level = 'province' and areas.is_current

)

select * from final
