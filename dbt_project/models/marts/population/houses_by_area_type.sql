with houses as (

    select * from {{ ref('stg_house_register') }}

),

counts as (

    select
        tambon_code,
        house_type,
        coalesce(status, 'unknown') as status,
        count(*) as houses
    from houses
    group by tambon_code, house_type, coalesce(status, 'unknown')

),

final as (

    select
        -- ids
        tambon_code,
        left(tambon_code, 4) as district_code,
        left(tambon_code, 2) as province_code,
        house_type,
        status,

        -- numbers
        houses
    from counts

)

select * from final
