-- Registration offices as the official statistics have them: an office of a district covers only what lies outside the
-- municipalities, each of which has an office of its own. The offices of a province add up to its province row.
with statistics as (

    select * from {{ ref('stg_population_area') }}

),

districts as (

    select area_code
    from {{ ref('dim_area') }}
    where level = 'district'

),

final as (

    select
        -- ids
        statistics.office_code,
        statistics.province_code,

        -- names
        statistics.office_name,
        (
            case
                when districts.area_code is null then 'local_authority' else 'district_outside_municipalities'
            end
        ) collate "C" as office_kind,

        -- numbers
        statistics.male,
        statistics.female,
        statistics.total,
        statistics.houses,

        -- dates
        statistics.month,
        {{ fiscal_year('statistics.month') }} as fiscal_year
    from statistics
    left join districts on statistics.office_code = districts.area_code
    where statistics.level = 'office'

)

select * from final
