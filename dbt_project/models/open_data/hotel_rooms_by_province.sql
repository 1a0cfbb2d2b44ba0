with hotels as (

    select * from {{ ref('hotels_by_province') }}
    where status = 'active'

),

final as (

    select
        province_code::text as province_code,
        province_name_th::text as province_name_th,
        province_name_en::text as province_name_en,
        hotel_type::text as hotel_type,
        hotels::integer as hotels,
        rooms::bigint as rooms
    from hotels

)

select * from final
