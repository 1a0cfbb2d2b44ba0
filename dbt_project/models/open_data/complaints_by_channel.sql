with complaints as (

    select * from {{ ref('complaints_by_area_channel') }}

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        complaints.month::date as month,
        complaints.fiscal_year::integer as fiscal_year,
        complaints.province_code::text as province_code,
        areas.name_th::text as province_name_th,
        areas.name_en::text as province_name_en,
        complaints.channel::text as channel,
        complaints.cases::bigint as cases
    from complaints
    left join areas on complaints.province_code = areas.area_code

)

select * from final
