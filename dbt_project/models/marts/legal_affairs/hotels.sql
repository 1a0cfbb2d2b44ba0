-- One row a licence, without whom it was given to.
with licences as (

    select * from {{ ref('stg_hotel_licence') }}

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        -- ids
        licences.licence_no,
        licences.province_code,
        licences.district_code,

        -- names
        licences.hotel_name,
        licences.hotel_type,
        (
            case licences.hotel_type
                when '1' then 'rooms only'
                when '2' then 'rooms and food'
                when '3' then 'rooms, food, and either entertainment or a conference hall'
                when '4' then 'rooms, food, entertainment and a conference hall'
            end
        ) collate "C" as hotel_type_en,
        provinces.name_th as province_name_th,
        provinces.name_en as province_name_en,
        districts.name_th as district_name_th,
        districts.name_en as district_name_en,
        licences.status,

        -- numbers
        licences.rooms,

        -- dates
        licences.issued_on,
        licences.expires_on
    from licences
    left join areas as provinces on licences.province_code = provinces.area_code
    left join areas as districts on licences.district_code = districts.area_code

)

select * from final
