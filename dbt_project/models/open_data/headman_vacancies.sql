with vacancies as (

    select * from {{ ref('headman_vacancies_by_district') }}

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        vacancies.district_code::text as district_code,
        areas.district_name_th::text as district_name_th,
        areas.district_name_en::text as district_name_en,
        vacancies.province_code::text as province_code,
        areas.province_name_th::text as province_name_th,
        areas.province_name_en::text as province_name_en,
        vacancies.post::text as post,
        vacancies.posts::integer as posts,
        vacancies.vacant_posts::integer as vacant_posts,
        vacancies.vacant_percent::numeric(5, 2) as vacant_percent
    from vacancies
    left join areas on vacancies.district_code = areas.area_code

)

select * from final
