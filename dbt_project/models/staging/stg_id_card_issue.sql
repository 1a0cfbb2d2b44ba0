with source as (

    select * from {{ source('raw', 'id_card_issue') }}

),

final as (

    select
        -- ids
        request_no::text collate "C" as request_no,
        pid::text collate "C" as pid,
        office_code::text collate "C" as office_code,

        -- names and codes
        reason::text collate "C" as reason,

        -- dates
        issued_on::date as issued_on,
        expires_on::date as expires_on,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
