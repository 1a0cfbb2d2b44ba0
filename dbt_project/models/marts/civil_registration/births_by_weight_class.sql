-- By the month in which the birth was registered; the area is where the child was born. Under 2,500 g is low birth weight
-- (World Health Organization, ICD-10, P07).
with births as (

    select
        left(tambon_code, 4) as district_code,
        (
            case
                when weight_grams is null then 'unknown'
                when weight_grams < 2500 then 'low'
                when weight_grams < 4000 then 'normal'
                else 'high'
            end
        ) collate "C" as weight_class,
        {{ month_of('registered_on') }} as month
    from {{ ref('stg_birth_event') }}

),

counts as (

    select
        month,
        district_code,
        weight_class,
        count(*) as births
    from births
    group by month, district_code, weight_class

),

final as (

    select
        -- ids
        district_code,
        left(district_code, 2) as province_code,
        weight_class,

        -- numbers
        births,

        -- dates
        month,
        {{ fiscal_year('month') }} as fiscal_year
    from counts

)

select * from final
