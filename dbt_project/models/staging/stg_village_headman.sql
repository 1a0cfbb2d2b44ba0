with source as (

    select * from {{ source('raw', 'village_headman') }}

),

final as (

    select
        -- ids
        pid::text collate "C" as pid,
        village_code::text collate "C" as village_code,

        -- names and codes
        full_name,
        post::text collate "C" as post,

        -- dates
        start_date::date as start_date,
        end_date::date as end_date,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
