with cards as (

    select
        month,
        fiscal_year,
        province_code,
        reason,
        sum(cards)::bigint as cards
    from {{ ref('id_cards_by_month') }}
    group by month, fiscal_year, province_code, reason

),

areas as (

    select * from {{ ref('dim_area') }}

),

final as (

    select
        cards.month::date as month,
        cards.fiscal_year::integer as fiscal_year,
        cards.province_code::text as province_code,
        areas.name_th::text as province_name_th,
        areas.name_en::text as province_name_en,
        cards.reason::text as reason_th,
        (
            case cards.reason
                when 'ขอมีบัตรครั้งแรก' then 'first card'
                when 'บัตรหมดอายุ' then 'expired'
                when 'บัตรหาย' then 'lost'
                when 'บัตรชำรุด' then 'damaged'
                when 'เปลี่ยนชื่อหรือที่อยู่' then 'change of name or address'
                else 'other'
            end
        )::text as reason_en,
        cards.cards::bigint as cards
    from cards
    left join areas on cards.province_code = areas.area_code

)

select * from final
