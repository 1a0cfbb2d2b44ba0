with cards as (

    select
        office_code,
        reason,
        {{ month_of('issued_on') }} as month
    from {{ ref('stg_id_card_issue') }}

),

counts as (

    select
        month,
        office_code,
        reason,
        count(*) as cards
    from cards
    group by month, office_code, reason

),

final as (

    select
        -- ids
        office_code,
        left(office_code, 2) as province_code,
        reason,

        -- numbers
        cards,

        -- dates
        month,
        {{ fiscal_year('month') }} as fiscal_year
    from counts

)

select * from final
