-- The levels that the official statistics give for areas. A district row of the statistics (an office) covers only what
-- lies outside the municipalities, so a district is the sum of its tambons; a tambon appears once for each local
-- authority, so it is summed by its code.
with statistics as (

    select * from {{ ref('stg_population_area') }}

),

provinces as (

    select
        month,
        level,
        province_code as area_code,
        province_code,
        null::bigint as offices,
        male,
        female,
        total,
        houses
    from statistics
    where level = 'province'

),

tambons as (

    select
        month,
        level,
        tambon_code as area_code,
        left(tambon_code, 2) as province_code,
        count(distinct office_code) as offices,
        sum(male)::bigint as male,
        sum(female)::bigint as female,
        sum(total)::bigint as total,
        sum(houses)::bigint as houses
    from statistics
    where level = 'tambon'
    group by month, level, tambon_code

),

districts as (

    select
        month,
        'district' collate "C" as level,
        left(area_code, 4) as area_code,
        province_code,
        null::bigint as offices,
        sum(male)::bigint as male,
        sum(female)::bigint as female,
        sum(total)::bigint as total,
        sum(houses)::bigint as houses
    from tambons
    group by month, left(area_code, 4), province_code

),

villages as (

    select
        month,
        level,
        village_code as area_code,
        left(village_code, 2) as province_code,
        count(distinct office_code) as offices,
        sum(male)::bigint as male,
        sum(female)::bigint as female,
        sum(total)::bigint as total,
        sum(houses)::bigint as houses
    from statistics
    where level = 'village'
    group by month, level, village_code

),

areas as (

    select * from provinces
    union all
    select * from districts
    union all
    select * from tambons
    union all
    select * from villages

),

-- Whether the tambons given for a province and month are the whole province.
completeness as (

    select
        provinces.month,
        provinces.province_code,
        (provinces.male, provinces.female, provinces.houses)
        is not distinct from (sum(tambons.male), sum(tambons.female), sum(tambons.houses)) as tambons_are_complete
    from provinces
    left join tambons
        on provinces.month = tambons.month and provinces.province_code = tambons.province_code
    group by provinces.month, provinces.province_code, provinces.male, provinces.female, provinces.houses

),

final as (

    select
        -- ids
        areas.level,
        areas.area_code,
        areas.province_code,

        -- names
        dim_area.name_th as area_name_th,
        dim_area.name_en as area_name_en,

        -- numbers
        areas.offices,
        areas.male,
        areas.female,
        areas.total,
        areas.houses,
        coalesce(completeness.tambons_are_complete, false) as tambons_are_complete,

        -- dates
        areas.month,
        {{ fiscal_year('areas.month') }} as fiscal_year
    from areas
    left join completeness
        on areas.month = completeness.month and areas.province_code = completeness.province_code
    left join {{ ref('dim_area') }} as dim_area on areas.area_code = dim_area.area_code

)

select * from final
