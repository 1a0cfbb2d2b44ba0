with hotels as (

    select * from {{ ref('hotels') }}

),

final as (

    select
        -- ids
        province_code,
        hotel_type,
        status,

        -- names
        min(province_name_th) as province_name_th,
        min(province_name_en) as province_name_en,

        -- numbers
        count(*) as hotels,
        sum(rooms)::bigint as rooms
    from hotels
    group by province_code, hotel_type, status

)

select * from final
