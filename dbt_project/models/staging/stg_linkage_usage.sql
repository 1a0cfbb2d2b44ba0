with source as (

    select * from {{ source('raw', 'linkage_usage') }}

),

final as (

    select
        -- names
        agency::text collate "C" as agency,
        service::text collate "C" as service,

        -- numbers
        calls::bigint as calls,

        -- dates
        usage_date::date as usage_date,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
