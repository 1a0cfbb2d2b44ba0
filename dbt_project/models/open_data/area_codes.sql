with areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        area_code::text as area_code,
        level::text as level,
        name_th::text as name_th,
        name_en::text as name_en,
        parent_code::text as parent_code,
        province_code::text as province_code,
        province_name_th::text as province_name_th,
        province_name_en::text as province_name_en,
        abolished_on::date as abolished_on,
        successor_code::text as successor_code
    from areas

)

select * from final
