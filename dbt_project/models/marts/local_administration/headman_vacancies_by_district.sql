with posts as (

    select * from {{ ref('headman_posts') }}

),

final as (

    select
        -- ids
        district_code,
        province_code,
        post,

        -- numbers
        count(*) as posts,
        count(*) filter (where is_vacant) as vacant_posts,
        round(100.0 * count(*) filter (where is_vacant) / count(*), 2) as vacant_percent,

        -- dates
        min(vacant_since) as longest_vacant_since
    from posts
    group by district_code, province_code, post

)

select * from final
