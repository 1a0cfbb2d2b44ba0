-- Which posts are occupied today. A post is vacant when each term in it has ended before today; a village that the house
-- register knows, in a tambon that has posts at all, should have a headman even if the register never named one. A
-- kamnan is one of the headmen of his tambon and stays the headman of his village, so that post is occupied by him.
with terms as (

    select
        village_code,
        post,
        start_date,
        end_date
    from {{ ref('stg_village_headman') }}

),

terms_with_kamnan as (

    select * from terms
    union all
    select
        village_code,
        'ผู้ใหญ่บ้าน' collate "C" as post,
        start_date,
        end_date
    from terms
    where post = 'กำนัน'

),

villages as (

    select distinct village_code
    from {{ ref('stg_house_register') }}
    where right(village_code, 2) <> '00'
        and tambon_code in (select left(village_code, 6) from terms)

),

posts as (

    select
        village_code,
        post
    from terms_with_kamnan
    union
    select
        village_code,
        'ผู้ใหญ่บ้าน' collate "C" as post
    from villages

),

occupation as (

    select
        posts.village_code,
        posts.post,
        count(terms.start_date) filter (
            where terms.start_date <= {{ as_of_date() }}
                and (terms.end_date is null or terms.end_date >= {{ as_of_date() }})
        ) as holders,
        min(terms.start_date) filter (
            where terms.start_date <= {{ as_of_date() }}
                and (terms.end_date is null or terms.end_date >= {{ as_of_date() }})
        ) as occupied_since,
        max(terms.end_date) filter (where terms.end_date < {{ as_of_date() }}) as last_end_date
    from posts
    left join terms_with_kamnan as terms
        on posts.village_code = terms.village_code and posts.post = terms.post
    group by posts.village_code, posts.post

),

final as (

    select
        -- ids
        village_code,
        left(village_code, 6) as tambon_code,
        left(village_code, 4) as district_code,
        left(village_code, 2) as province_code,
        post,

        -- numbers
        holders,
        holders = 0 as is_vacant,

        -- dates
        occupied_since,
        case when holders = 0 then last_end_date + 1 end as vacant_since
    from occupation

)

select * from final
