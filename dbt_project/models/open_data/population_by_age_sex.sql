with people as (

    select
        as_of,
        district_code,
        province_code,
        age_band,
        sex,
        sum(people)::bigint as people
    from {{ ref('people_by_area_age_sex') }}
    group by as_of, district_code, province_code, age_band, sex

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        people.as_of::date as as_of,
        people.district_code::text as district_code,
        areas.district_name_th::text as district_name_th,
        areas.district_name_en::text as district_name_en,
        people.province_code::text as province_code,
        areas.province_name_th::text as province_name_th,
        areas.province_name_en::text as province_name_en,
        people.age_band::text as age_band,
        people.sex::text as sex,
        people.people::bigint as people
    from people
    left join areas on people.district_code = areas.area_code

)

select * from final
