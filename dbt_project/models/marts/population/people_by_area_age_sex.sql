-- People present in a house register (status 0, or 3: a central house register). Age refers to the variable as_of, or
-- else to the last event in the register itself, so that the same register always gives the same figures.
with people as (

    select * from {{ ref('stg_person_register') }}

),

snapshot as (

    select
        {%- if var('as_of') %}
        {{ as_of_date() }} as as_of
        {%- else %}
        max(greatest(birth_date, moved_in_date)) as as_of
    from people
        {%- endif %}

),

ages as (

    select
        people.tambon_code,
        people.sex,
        snapshot.as_of,
        {{ age_at(
            age_counts_from('people.birth_date', 'people.birth_year', 'people.birth_month'),
            'snapshot.as_of',
        ) }} as age
    from people
    cross join snapshot
    where people.status_code in ('0', '3')

),

bands as (

    select
        tambon_code,
        sex,
        as_of,
        {{ age_band('age') }} as age_band
    from ages

),

counts as (

    select
        tambon_code,
        age_band,
        sex,
        as_of,
        count(*) as people
    from bands
    group by tambon_code, age_band, sex, as_of

),

final as (

    select
        -- ids
        tambon_code,
        left(tambon_code, 4) as district_code,
        left(tambon_code, 2) as province_code,
        age_band,
        sex,

        -- numbers
        people,

        -- dates
        as_of
    from counts

)

select * from final
