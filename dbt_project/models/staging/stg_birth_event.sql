with source as (

    select * from {{ source('raw', 'birth_event') }}

),

final as (

    select
        -- ids
        birth_no::text collate "C" as birth_no,
        child_pid::text collate "C" as child_pid,
        mother_pid::text collate "C" as mother_pid,
        office_code::text collate "C" as office_code,
        left(area_code::text collate "C", 6) as tambon_code,

        -- names and codes
        (case sex when 'ชาย' then 'male' when 'หญิง' then 'female' end) collate "C" as sex,

        -- numbers
        weight_grams::integer as weight_grams,

        -- dates
        birth_date::date as birth_date,
        registered_on::date as registered_on,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
