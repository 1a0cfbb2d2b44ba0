with source as (

    select * from {{ source('raw', 'person_register') }}

),

final as (

    select
        -- ids
        pid::text collate "C" as pid,
        house_code::text collate "C" as house_code,
        area_code::text collate "C" as tambon_code,

        -- names and codes
        title,
        first_name,
        last_name,
        (case sex when '1' then 'male' when '2' then 'female' end) collate "C" as sex,
        nationality::text collate "C" as nationality_code,
        status::text collate "C" as status_code,

        -- dates (a partial birth date has its year, and perhaps its month, but no date)
        birth_date::date as birth_date,
        birth_date_year::integer as birth_year,
        birth_date_month::integer as birth_month,
        moved_in_date::date as moved_in_date,

        -- provenance
        _delivery_id as delivery_id

    from source

)

select * from final
