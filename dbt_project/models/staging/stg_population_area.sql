with source as (

    select * from {{ source('raw', 'population_area') }}

),

final as (

    select
        -- ids (the silo's CCAATT column holds the code of a tambon)
        province_code::text collate "C" as province_code,
        office_code::text collate "C" as office_code,
        tambon_code::text collate "C" as tambon_code,
        village_code::text collate "C" as village_code,

        -- names
        province_name,
        office_name,
        tambon_name,
        village_name,
        (
            case
                when village_code is not null then 'village'
                when tambon_code is not null then 'tambon'
                when office_code is not null then 'office'
                else 'province'
            end
        ) collate "C" as level,

        -- numbers
        male::bigint as male,
        female::bigint as female,
        total::bigint as total,
        houses::bigint as houses,

        -- dates
        month::date as month,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
