-- A province row of the official statistics equals the sum of its office rows, figure by figure.
{{ config(meta={'national_dimension': 'consistency'}, description='The offices of a province add up to its province row / ผลรวมสำนักทะเบียนเท่ากับยอดจังหวัด') }}

with provinces as (

    select * from {{ ref('population_by_area') }}
    where level = 'province'

),

offices as (

    select
        month,
        province_code,
        sum(male) as male,
        sum(female) as female,
        sum(total) as total,
        sum(houses) as houses
    from {{ ref('population_by_office') }}
    group by month, province_code

)

select
    provinces.month,
    provinces.province_code
from provinces
inner join offices
    on provinces.month = offices.month and provinces.province_code = offices.province_code
where (provinces.male, provinces.female, provinces.total, provinces.houses)
    is distinct from (offices.male, offices.female, offices.total, offices.houses)
