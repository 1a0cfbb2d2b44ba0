-- Licences in force; who holds them does not leave.
with hotels as (

    select * from {{ ref('hotels') }}
    where status = 'active'

),

final as (

    select
        licence_no::text as licence_no,
        hotel_name::text as hotel_name,
        hotel_type::text as hotel_type,
        hotel_type_en::text as hotel_type_description,
        rooms::integer as rooms,
        province_code::text as province_code,
        province_name_th::text as province_name_th,
        province_name_en::text as province_name_en,
        district_code::text as district_code,
        district_name_th::text as district_name_th,
        district_name_en::text as district_name_en,
        issued_on::date as issued_on,
        expires_on::date as expires_on
    from hotels

)

select * from final
