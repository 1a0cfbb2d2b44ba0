-- As the register is today; houses that were taken down stay in it and are left out.
with houses as (

    select
        district_code,
        province_code,
        house_type,
        sum(houses)::bigint as houses
    from {{ ref('houses_by_area_type') }}
    where status <> 'รื้อถอน'
    group by district_code, province_code, house_type

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        houses.district_code::text as district_code,
        areas.district_name_th::text as district_name_th,
        areas.district_name_en::text as district_name_en,
        houses.province_code::text as province_code,
        areas.province_name_th::text as province_name_th,
        areas.province_name_en::text as province_name_en,
        houses.house_type::text as house_type,
        houses.houses::bigint as houses
    from houses
    left join areas on houses.district_code = areas.area_code

)

select * from final
