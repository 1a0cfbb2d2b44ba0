with people as (

    select
        province_code,
        age_band,
        sex,
        sum(people)::bigint as people
    from {{ ref('people_by_area_age_sex') }}
    group by province_code, age_band, sex

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        people.province_code::text as province_code,
        areas.name_th::text as province_name_th,
        areas.name_en::text as province_name_en,
        people.age_band::text as age_band,
        people.sex::text as sex,
        people.people::bigint as people
    from people
    left join areas on people.province_code = areas.area_code

)

select * from final
