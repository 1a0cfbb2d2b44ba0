-- name: operators_without_functions
select id, name ^@ '1' as a, tags && array[name] as b, tags <@ array['10', '11'] as c, attrs @? '$.a' as d, attrs @@ '$.a == "x"' as e, attrs #- '{n}' as f, list_price <> all (array[1, 2]) as g from products
-- name: operators_unnamed
select name ^@ '1', attrs @@ '$.a == "x"', -id, ceiling(list_price), ceil(list_price), name ~~ '1%', not (id = 1), (id, name) = (1, 'x') from products
-- name: array_slices
select marks[1:score], marks[:2] as b, (marks)[1] as c from events
-- name: overlay_all_columns
select overlay(c.name placing c.province from c.referred_by for c.id) as o from customers c where c.referred_by > 0
-- name: window_frame_of_columns
select id, sum(amount) over (partition by status order by id rows between 1 preceding and current row exclude group) as s from orders
-- name: json_constructors
select json_object('k': id, 'v': name) as o, json_array(province, id) as a from customers
-- name: json_query_functions
select id, json_value(attrs, '$.a') as a, json_exists(attrs, '$.c') as c, json_query(attrs, '$.b') as b from products
-- name: xmltable
-- excluded: the embedded server is built without XML
select x.y, x.z from customers c, xmltable('/r/i' passing (('<r><i>' || c.id || '</i></r>')::xml) columns y integer path '.', z text path '@none' default c.name) as x
-- name: aggregates_of_rows
select o.status, array_agg(row(o.id, o.amount) order by o.id) as pairs, jsonb_agg(jsonb_build_object('k', o.note) order by o.id) as notes from orders o group by o.status
-- name: populate_record
select p.id, (jsonb_populate_record(null::copies, p.attrs || jsonb_build_object('name', p.category))).* from products p where p.list_price > 2
-- name: union_of_subqueries_in_select
select c.id, (select o.status from orders o where o.id = c.id union select e.dept from employees e where e.id = c.id and c.segment = 'a' order by 1 limit 1) as z from customers c
-- name: group_by_distinct_sets
select province, segment, count(*) from customers group by distinct rollup (province, segment), rollup (province)
-- name: materialized_view
create materialized view made_materialized as select segment, max(joined) as last from customers group by segment
-- name: having_without_group
select max(amount) as top from orders having count(*) > 3
-- name: full_join_three
select id, a, b, c from (select id, name as a from customers) x full join (select id, status as b from orders) y using (id) full join (select id, dept as c from employees) z using (id)
-- name: lateral_over_view
select t.customer_id, l.name from order_totals t left join lateral (select c.name from customers c where c.id = t.customer_id and t.total > 4) l on true
