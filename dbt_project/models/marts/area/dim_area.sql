with areas as (

    select * from {{ ref('stg_area_code') }}

),

provinces as (

    select
        area_code,
        name_th,
        name_en
    from areas
    where level = 'province'

),

districts as (

    select
        area_code,
        name_th,
        name_en
    from areas
    where level = 'district'

),

final as (

    select
        -- ids
        areas.area_code,
        left(areas.area_code, 2) as province_code,
        case when areas.level <> 'province' then left(areas.area_code, 4) end as district_code,
        case when areas.level = 'tambon' then areas.area_code end as tambon_code,
        case when areas.level <> 'province' then left(areas.area_code, -2) end as parent_code,
        areas.successor_code,

        -- names
        areas.level,
        areas.name_th,
        areas.name_en,
        provinces.name_th as province_name_th,
        provinces.name_en as province_name_en,
        districts.name_th as district_name_th,
        districts.name_en as district_name_en,

        -- dates
        areas.abolished_on,
        areas.abolished_on is null as is_current
    from areas
    left join provinces on left(areas.area_code, 2) = provinces.area_code
    left join districts
        on areas.level <> 'province' and left(areas.area_code, 4) = districts.area_code

)

select * from final
