with source as (

    select * from {{ source('raw', 'complaint') }}

),

final as (

    select
        -- ids
        case_no::text collate "C" as case_no,
        complainant_pid::text collate "C" as complainant_pid,
        area_code::text collate "C" as area_code,

        -- names and codes
        topic::text collate "C" as topic,
        channel::text collate "C" as channel,
        complainant_name,
        detail,
        status::text collate "C" as status,
        outcome::text collate "C" as outcome,

        -- dates
        received_on::date as received_on,
        closed_on::date as closed_on,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
