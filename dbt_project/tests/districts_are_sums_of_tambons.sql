-- Every tambon is in one district row of its month, and the districts hold nothing else.
{{ config(meta={'national_dimension': 'consistency'}, description='A district is the sum of its tambons / ยอดอำเภอเท่ากับผลรวมตำบล') }}

with districts as (

    select
        month,
        area_code as district_code,
        total,
        houses
    from {{ ref('population_by_area') }}
    where level = 'district'

),

tambons as (

    select
        month,
        left(tambon_code, 4) as district_code,
        sum(total) as total,
        sum(houses) as houses
    from {{ ref('stg_population_area') }}
    where level = 'tambon'
    group by month, left(tambon_code, 4)

)

select
    month,
    district_code
from districts
full join tambons using (month, district_code)
where (districts.total, districts.houses) is distinct from (tambons.total, tambons.houses)
