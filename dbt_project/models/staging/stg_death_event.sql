with source as (

    select * from {{ source('raw', 'death_event') }}

),

final as (

    select
        -- ids
        death_no::text collate "C" as death_no,
        pid::text collate "C" as pid,
        office_code::text collate "C" as office_code,
        left(area_code::text collate "C", 6) as tambon_code,

        -- names and codes
        (case sex when 'ชาย' then 'male' when 'หญิง' then 'female' end) collate "C" as sex,
        cause_group::text collate "C" as cause_group,

        -- numbers
        age_years::integer as age_years,

        -- dates
        death_date::date as death_date,
        registered_on::date as registered_on,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
