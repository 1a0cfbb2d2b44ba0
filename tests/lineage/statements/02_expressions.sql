-- name: case_searched
select id, case when status = 'open' then amount when placed > date '2024-02-01' then 0 else 1 end as due from orders
-- name: case_simple
select case segment when 'a' then name when 'b' then province end as shown from customers
-- name: case_nested
select id, case when credit > 3 then case province when 'x' then 'rich x' else 'rich' end else segment end as kind from customers
-- name: coalesce
select id, coalesce(name, province, 'none') as called from customers
-- name: nullif
select id, nullif(status, note) as told, 10 / nullif(amount - 2, 0) as part from orders
-- name: greatest_least
select id, greatest(qty, line) as most, least(price, discount, 1) as fewest from (select order_id as id, qty, line, price, discount from items) i
-- name: casts
select id::text as a, cast(credit as integer) as b, joined::timestamp as c, id::numeric(10, 2)::text as d from customers
-- name: collate
select name collate "C" as sorted, (province)::text collate "C" as p from customers order by 1, 2
-- name: text_functions
select left(name, 2) as a, substring(province from 1 for 2) as b, replace(segment, '1', 'x') as c, lpad(id::text, 3, '0') as d, position('1' in name) as e, overlay(name placing 'zz' from 1 for 2) as f, split_part(name, '0', 1) as g, length(province) as h from customers
-- name: regular_expressions
select id, name ~ '^1' as a, province ~* 'x' as b, regexp_replace(segment, '[0-9]', 'x') as c, name similar to '1%' as d, segment not ilike 'x%' as e from customers
-- name: dates
select id, extract(month from placed) as m, date_trunc('month', placed::timestamp)::date as first, placed + interval '1 month' as later, placed - date '2024-01-01' as days, age(placed::timestamp, timestamp '2020-01-01') as old, to_char(placed, 'YYYY-MM') as ym, make_date(2024, customer_id, 1) as made from orders where customer_id between 1 and 12
-- name: at_time_zone
select id, at at time zone 'Asia/Bangkok' as there, (at at time zone 'UTC') at time zone 'Asia/Bangkok' as here from events
-- name: overlaps
select o.id, (o.placed, interval '30 days') overlaps (date '2024-01-20', date '2024-02-10') as meets from orders o
-- name: intervals
select id, at + score * interval '1 day' as due, justify_days(score * interval '10 days') as span from events
-- name: arithmetic
select order_id, qty * price * (1 - discount) as net, qty % 2 as odd, price ^ 2 as squared, |/ abs(price) as root, qty & 1 as bit, qty << 1 as double, @ discount as absolute from items
-- name: booleans
select id, status = 'open' and amount > 2 as a, amount > 2 or null as b, not (status = 'open') as c, (amount > 2) is true as d, (amount > 2) is unknown as e from orders
-- name: md5
select md5(name) as hidden, encode(sha256(province::bytea), 'hex') as hash, hashtext(segment) as number from customers
-- name: json_operators
select id, attrs -> 'a' as a, attrs ->> 'a' as b, attrs #> '{n,k}' as c, attrs #>> '{n,k}' as d, attrs @> '{"a": "x"}' as e, attrs ? 'c' as f, attrs - 'a' as g, attrs || '{"z": 1}' as h from products
-- name: json_operators_as_arguments
select coalesce(attrs -> 'a', '"none"') as a, upper(attrs ->> 'a') as b, coalesce(p.attrs -> 'n' ->> 'k', p.name) as c, jsonb_typeof(p.attrs -> 'b') as d from products p
-- name: json_subscript
select attrs['n']['k'] as k, (attrs -> 'b' -> 0)::text as first from products
-- name: json_building
select jsonb_build_object('id', id, 'who', name) as o, json_build_array(province, segment) as a, to_jsonb(credit) as c from customers
-- name: json_path
select id, jsonb_path_exists(payload, '$[*] ? (@.a > 1)') as big, jsonb_path_query_array(payload, '$[*].b') as bs from events
-- name: jsonb_array_elements
select e.id, x.value ->> 'a' as a from events e, jsonb_array_elements(e.payload) as x
-- name: jsonb_array_elements_row
select e.id, x ->> 'b' as b from events e cross join lateral jsonb_array_elements(e.payload) x
-- name: jsonb_array_elements_ordinality
select e.id, x.item ->> 'a' as a, x.n from events e, jsonb_array_elements(e.payload) with ordinality as x (item, n)
-- name: jsonb_each
select p.id, a.key, a.value from products p, jsonb_each(p.attrs) a where a.key <> 'b'
-- name: jsonb_each_text_renamed
select p.name, k, v from products p left join lateral jsonb_each_text(p.attrs) as t (k, v) on v <> 'x'
-- name: jsonb_to_recordset
select e.id, r.a, r.b from events e, jsonb_to_recordset(e.payload) as r (a integer, b text)
-- name: jsonb_to_record
select p.id, r.* from products p, jsonb_to_record(p.attrs) as r (a text, c boolean)
-- name: jsonb_populate_recordset
select r.id, r.name from events e, jsonb_populate_recordset(null::copies, e.payload || '[{"id": 7, "name": "n"}]') as r where e.score > 2
-- name: jsonb_object_keys
select id, jsonb_object_keys(attrs) as k from products
-- name: json_star_of_function
select id, (jsonb_each(attrs)).* from products
-- name: json_table
select e.id, t.a, t.b from events e, json_table(e.payload, '$[*]' columns (a integer path '$.a', b text path '$.b')) as t
-- name: arrays
select id, tags[1] as first, array_length(tags, 1) as n, tags || name as more, '10' = any (tags) as has, tags @> array[category] as contains, array_to_string(tags, ',') as joined, array[name, category] as both, tags[1:2] as two from products
-- name: array_all
select id from events where score > all (marks)
-- name: unnest_lateral
select p.id, t from products p, unnest(p.tags) as t
-- name: unnest_ordinality
select e.id, m.mark, m.place from events e cross join lateral unnest(e.marks) with ordinality as m (mark, place)
-- name: unnest_ordinality_unnamed
select e.id, u.* from events e, unnest(e.marks) with ordinality as u
-- name: unnest_two
select u.a, u.b from (select tags from products where id = 1) p, (select marks from events where id = 1) e, unnest(p.tags, e.marks) as u (a, b)
-- name: unnest_in_select
select id, unnest(marks) as mark from events
-- name: unnest_left_join
select p.id, t.tag from products p left join lateral unnest(p.tags) as t (tag) on true
-- name: rows_from
select e.id, z.a, z.b from events e, rows from (unnest(e.marks), generate_series(1, e.score)) as z (a, b)
-- name: generate_series
select g as day, count(o.id) as orders from generate_series(date '2024-01-10', date '2024-01-20', interval '1 day') as g left join orders o on o.placed = g group by g
-- name: generate_series_of_column
select id, generate_series(1, score) as n from events where score < 6
-- name: generate_series_lateral
select e.id, g.n from events e, generate_series(e.score, e.score + 2) as g (n)
-- name: string_to_table
select c.id, w from customers c, regexp_split_to_table(c.name, '0') as w
-- name: whole_row
select c from customers c
-- name: whole_row_to_json
select row_to_json(o) as o, to_jsonb(c) ->> 'name' as n from orders o join customers c on c.id = o.customer_id
-- name: whole_row_count
select c.province, count(o) as orders, count(o.*) as again from customers c left join orders o on o.customer_id = c.id group by c.province
-- name: whole_row_star
select (c).*, (c).name as n from customers c
-- name: whole_row_through_subquery
select (s.r).id, (s.r).amount, s.customer from (select o as r, c.name as customer from orders o join customers c on c.id = o.customer_id) s
-- name: whole_row_star_through_subquery
select (s.r).* from (select o as r from orders o) s
-- name: whole_row_distinct
select count(distinct c) as n from (select province, segment from customers) c
-- name: whole_row_compared
select a.id from copies a join copies b on a = b where a is not null
-- name: whole_row_aggregated
select o.customer_id, jsonb_agg(o order by o.id) as all_of_them from orders o group by o.customer_id
-- name: row_constructor
select row(id, name) as r, (id, province) as s, row(c.*) as t from customers c
-- name: row_distinct
select o.id from orders o join shop.orders s on (o.id, o.amount) is not distinct from (s.id, s.amount)
-- name: schema_qualified_function
select pg_catalog.upper(name) as n, pg_catalog.count(*) over () as c from customers
-- name: named_arguments
select make_interval(days => score) as span, make_date(year => 2024, month => 1, day => score) as day from events where score between 1 and 6
-- name: ranges
select id, daterange(placed, placed + 10) && daterange('2024-01-20', '2024-02-01') as meets, int4range(customer_id, customer_id + 2) @> 3 as has from orders
-- name: string_concatenation
select concat(name, '-', province) as a, concat_ws(' ', segment, name) as b, format('%s:%s', id, province) as c from customers
