with usage as (

    select * from {{ ref('linkage_usage_by_agency') }}

),

final as (

    select
        month::date as month,
        fiscal_year::integer as fiscal_year,
        agency::text as agency,
        service::text as service,
        calls::bigint as calls,
        days_used::integer as days_used
    from usage

)

select * from final
