with source as (

    select * from {{ source('raw', 'house_register') }}

),

final as (

    select
        -- ids
        house_code::text collate "C" as house_code,
        left(area_code::text collate "C", 6) as tambon_code,
        area_code::text collate "C" as village_code,

        -- names and codes
        house_no,
        house_type::text collate "C" as house_type,
        status::text collate "C" as status,

        -- dates
        registered_on::date as registered_on,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
