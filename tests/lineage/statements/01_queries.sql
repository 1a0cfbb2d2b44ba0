-- name: plain
select id, name from customers
-- name: star
select * from customers
-- name: star_of_two
select * from customers as c join orders as o on o.customer_id = c.id
-- name: star_of_one_of_two
select o.*, c.name from customers c, orders o where c.id = o.customer_id
-- name: nested_star
select * from (select t.* from (select id, credit * 2 as twice from customers) as t) as s
-- name: expressions
select id + 1 as next_id, upper(name) || ' ' || province as label, -credit as minus, credit between 2 and 4 as middling, name like '1%' as one from customers
-- name: constants
select 1 as one, 'x' as x, null as nothing, true as yes, id from products
-- name: unnamed_columns
select id, id + 1, upper(name), count(*) over (), case when id = 1 then 'x' else name end, credit::integer, '1'::bigint, date '2024-01-01', coalesce(name, 'x'), (select max(o.amount) from orders o), exists (select 1 from orders), array[id], (id, name), extract(year from joined), null, true, trim(name), greatest(id, 2) from customers
-- name: where
select id from orders where status = 'open' and amount > 2
-- name: where_or_not
select id, note from orders where not (status = 'open' or amount is null) and placed is not null
-- name: is_distinct_from
select id, status is distinct from note as differs, status is not distinct from 'open' as is_open from orders where amount is distinct from 3
-- name: between_symmetric
select id from orders where amount between symmetric 4 and 2
-- name: in_list
select id, amount in (1, 2, 3) as small from orders where status in ('open', 'paid')
-- name: row_comparison
select id from items i join orders o on (o.id, o.customer_id) = (i.order_id, i.line) where (i.qty, i.line) < (3, 2)
-- name: row_in_subquery
select name from customers where (id, province) in (select customer_id, status from orders)
-- name: inner_join
select o.id, c.name from orders o join customers c on c.id = o.customer_id
-- name: left_join
select c.name, o.amount from customers c left join orders o on o.customer_id = c.id and o.status = 'open'
-- name: right_join
select c.name, o.amount from customers c right join orders o on o.customer_id = c.id
-- name: full_join
select c.name, o.amount, c.id, o.customer_id from customers c full join orders o on o.customer_id = c.id
-- name: cross_join
select c.name, p.category from customers c cross join products p
-- name: self_join
select e.name, b.name as boss from employees e left join employees b on b.id = e.boss_id
-- name: anti_join
select c.id, c.name from customers c left join orders o on o.customer_id = c.id where o.id is null
-- name: using_join
select * from (select id as order_id, status from orders) o join items using (order_id)
-- name: using_left
select order_id, status, qty from (select id as order_id, status from orders) o left join items using (order_id)
-- name: using_right
select order_id, status, qty from (select id as order_id, status from orders) o right join items using (order_id)
-- name: using_full
select order_id, status, qty from (select id as order_id, status from orders) o full join items using (order_id)
-- name: using_qualified
select o.order_id, i.order_id as theirs, order_id as ours from (select id as order_id from orders) o left join items i using (order_id)
-- name: using_three
select id, x, y, z from (select id, name as x from customers) a join (select id, status as y from orders) b using (id) join (select id, kind as z from events) c using (id)
-- name: natural_join
select * from (select id as order_id, status from orders) o natural join items
-- name: natural_left
select * from (select id, name from customers) c natural left join (select id, status from orders) o
-- name: natural_full
select * from (select id, name from customers) c natural full join (select id, status from orders) o
-- name: join_in_parentheses
select c.name, o.status, i.qty from customers c left join (orders o join items i on i.order_id = o.id) on o.customer_id = c.id
-- name: join_with_alias
select j.name, j.status from (customers c join (select id as order_id, customer_id as id, status from orders) o using (id)) as j
-- name: join_nested_without_parentheses
select c.name, i.qty from customers c join orders o join items i on i.order_id = o.id on o.customer_id = c.id
-- name: many_joins
select c.name, p.name as product, i.qty * i.price as worth from customers c join orders o on o.customer_id = c.id join items i on i.order_id = o.id join products p on p.id = i.product_id where p.category = 'tool'
-- name: inequality_join
select a.id, b.id as cheaper from products a join products b on b.list_price < a.list_price
-- name: alias_column_list
select a, b, province from customers as c (a, b)
-- name: derived_column_list
select x, y from (select id, name from customers) as t (x, y) where x > 1
-- name: other_schema
select s.place, p.name from shop.stock s join public.products p on p.id = s.product_id
-- name: same_table_name_in_two_schemas
select public.orders.status, shop.orders.amount from public.orders join shop.orders on shop.orders.id = public.orders.id
-- name: search_path
select orders.id, orders.placed from orders
-- name: distinct
select distinct province, segment from customers
-- name: distinct_on
select distinct on (customer_id) customer_id, amount, status from orders order by customer_id, placed desc, id
-- name: distinct_on_expression
select distinct on (placed - date '2024-01-01', 2) id, note from orders order by placed - date '2024-01-01', 2, id
-- name: distinct_on_output_name
select distinct on (k) lower(status) as k, id from orders order by k, id
-- name: order_by
select id, name from customers order by credit desc nulls last, id
-- name: order_by_output_name
select id, -id as name from customers order by name
-- name: order_by_expression_of_input
select id, -id as credit from customers order by credit + 0, id
-- name: order_by_position
select name, id from customers order by 1, 2
-- name: order_and_limit
select id, name from customers order by joined, id limit 3
-- name: order_limit_offset
select name from customers order by credit, id limit 3 offset 1
-- name: fetch_first
select id from customers order by credit nulls first, id fetch first 2 rows only
-- name: fetch_with_ties
select id from customers order by province fetch first 2 rows with ties
-- name: limit_subquery
select id from customers order by id limit (select count(*) from orders where status = 'open')
-- name: limit_without_order
-- excluded: which rows come without an order is up to the table's physical order
select id, name from customers limit 3
-- name: limit_in_derived
select t.name, o.status from (select id, name from customers order by credit, id limit 4) t left join orders o on o.customer_id = t.id
-- name: for_update
select id, amount from orders where status = 'open' for update
-- name: for_share_of
select o.id, c.name from orders o join customers c on c.id = o.customer_id for no key update of o skip locked
-- name: comments
select /* all of /* them */ */ id, -- the key
    name from customers -- nothing else
where segment = 'a--b' or id > 2
-- name: table_command
table customers
-- name: table_command_ordered
table employees order by salary, id limit 2
-- name: values_only
values (1, 'a'), (2, 'b')
-- name: values_joined
select v.word, c.name from (values (1, 'one'), (2, 'two')) as v (n, word) join customers c on c.id = v.n
-- name: values_of_columns
select t.k, t.v, c.id from customers c cross join lateral (values ('name', c.name), ('province', c.province)) as t (k, v)
-- name: values_in_cte
with v (n, word) as (values (1, 'one'), (2, 'two'), (3, 'three')) select word, count(o.id) from v left join orders o on o.customer_id = n group by word
-- name: select_nothing_from
select 1 as one from customers where credit > 2
-- name: only
select id from only customers
-- name: tablesample_all
select id, name from customers tablesample bernoulli (100)
-- name: tablesample
-- excluded: a sample is drawn anew each time
select id, name from customers tablesample bernoulli (50)
-- name: volatile
-- excluded: random() gives another value each time
select id, random() as chance from customers
-- name: quoted_identifiers
select "Id", "First Name", m.lower, "Mixed Case"."lower" + 1 as "Lower Plus" from "Mixed Case" join (select "lower" from "Mixed Case") m on m."lower" = "Mixed Case"."Id"
-- name: folding
SELECT C.ID, c.Name AS NameOfCustomer FROM Customers AS C WHERE C."province" = 'x'
-- name: thai
select ชื่อ, นามสกุล, "จังหวัด" as จว from ทะเบียน where จังหวัด = 'เชียงใหม่'
-- name: thai_join
select ท.ชื่อ || ' ' || ท.นามสกุล as ชื่อเต็ม, บ.อำเภอ from ทะเบียน as ท left join บ้าน as บ using (รหัสบ้าน)
-- name: thai_aggregate
with คน as (select จังหวัด, extract(year from วันเกิด) + 543 as ปี from ทะเบียน) select จังหวัด, ปี, count(*) as จำนวน from คน group by จังหวัด, ปี
-- name: thai_name_cut_at_63_bytes
select ชื่อ as ชื่อของบุคคลตามทะเบียนราษฎรทั้งหมด, จังหวัด from ทะเบียน
-- name: system_columns
-- excluded: ctid is where a row lies, which changes whenever it is written
select ctid, tableoid, id from customers
-- name: current_values
select id, current_date >= joined as has_joined, current_user as who from customers
-- name: view
select * from open_orders
-- name: view_over_view
select c.name, t.total, t.orders from order_totals t join customers c on c.id = t.customer_id
-- name: view_with_column_list
select product, how_many + 1 as more from shop.named_stock
-- name: create_table_as
create table made as select id, name, credit + 1 as more from customers where segment = 'a'
-- name: create_table_as_with_names
create table made_named (k, title) as select id, name from products
-- name: create_view
create or replace view made_view as select province, count(*) as people from customers group by province
-- name: create_view_with_names
create view made_view_named (p, n) as select province, max(credit) from customers group by 1
-- name: insert_select
insert into copies select id, name, credit from customers where credit > 2
-- name: insert_columns
insert into copies (name, id) select status, id from orders
-- name: insert_with
with o as (select id, amount from orders where status = 'open') insert into copies (id, amount) select id, amount from o
-- name: duplicate_names
select c.id, o.id, c.name from customers c join orders o on o.id = c.id
