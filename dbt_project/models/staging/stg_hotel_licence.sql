with source as (

    select * from {{ source('raw', 'hotel_licence') }}

),

final as (

    select
        -- ids
        licence_no::text collate "C" as licence_no,
        licensee_pid::text collate "C" as licensee_pid,
        province_code::text collate "C" as province_code,
        district_code::text collate "C" as district_code,

        -- names and codes
        hotel_name,
        hotel_type::text collate "C" as hotel_type,
        status::text collate "C" as status,

        -- numbers
        rooms::integer as rooms,

        -- dates
        issued_on::date as issued_on,
        expires_on::date as expires_on,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
