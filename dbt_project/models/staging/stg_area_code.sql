with source as (

    select * from {{ source('raw', 'area_code') }}

),

final as (

    select
        -- ids
        code::text collate "C" as area_code,
        successor::text collate "C" as successor_code,

        -- names
        (
            case length(code)
                when 2 then 'province'
                when 4 then 'district'
                when 6 then 'tambon'
            end
        ) collate "C" as level,
        name_th,
        name_en,

        -- dates
        abolished_on::date as abolished_on,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
