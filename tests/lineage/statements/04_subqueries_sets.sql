-- name: scalar_subquery
select id, (select max(o.amount) from orders o) as top from customers
-- name: scalar_correlated
select c.name, (select sum(o.amount) from orders o where o.customer_id = c.id and o.status = 'open') as due from customers c
-- name: scalar_by_key
select o.id, (select c.name from customers c where c.id = o.customer_id) as who from orders o
-- name: scalar_nested
select c.id, (select count(*) from orders o where o.customer_id = c.id and o.amount > (select avg(x.amount) from orders x where x.customer_id = c.id)) as above from customers c
-- name: scalar_in_where
select id from orders where amount > (select avg(amount) from orders)
-- name: scalar_ordered_limited
select c.id, (select o.status from orders o where o.customer_id = c.id order by o.placed desc, o.id limit 1) as latest from customers c
-- name: exists
select c.name from customers c where exists (select from orders o where o.customer_id = c.id and o.status = 'open')
-- name: not_exists
select c.name from customers c where not exists (select 1 from orders o join items i on i.order_id = o.id where o.customer_id = c.id)
-- name: exists_as_value
select c.id, exists (select 1 from orders o where o.customer_id = c.id) as buys from customers c
-- name: exists_with_having
select c.name from customers c where exists (select o.status from orders o where o.customer_id = c.id group by o.status having count(*) > 1)
-- name: in_subquery
select name from customers where id in (select customer_id from orders where status = 'open')
-- name: not_in_subquery
select name from customers where id not in (select customer_id from orders where customer_id is not null and amount > 2)
-- name: in_subquery_as_value
select id, province in (select status from orders) as listed from customers
-- name: any_subquery
select id from products where list_price < any (select price from items)
-- name: all_subquery
select id from products where list_price >= all (select price from items where price is not null and qty > 2)
-- name: some_array
select id from events where score = some (marks)
-- name: array_subquery
select c.name, array(select o.amount from orders o where o.customer_id = c.id order by o.placed, o.id) as amounts from customers c
-- name: array_subquery_compared
select id from customers where id = any (array(select customer_id from orders where status = 'open'))
-- name: subquery_in_case
select id, case when exists (select 1 from items i where i.order_id = o.id) then 'has' else 'none' end as items from orders o
-- name: subquery_in_from_correlated
select c.name, t.n from customers c, lateral (select count(*) as n from orders o where o.customer_id = c.id) t
-- name: lateral_top
select c.name, t.amount, t.placed from customers c left join lateral (select o.amount, o.placed from orders o where o.customer_id = c.id order by o.amount desc nulls last, o.id limit 2) t on true
-- name: lateral_expressions
select o.id, a.net, b.gross from orders o cross join lateral (select o.amount * 2 as net) a cross join lateral (select a.net * 1.07 as gross) b
-- name: lateral_filter
select o.id, t.big from orders o, lateral (select o.amount > 2 as big) t where t.big
-- name: lateral_in_lateral
select c.id, x.k, x.s from customers c, lateral (select o.id as k, y.s from orders o, lateral (select sum(i.qty) as s from items i where i.order_id = o.id and i.line < c.id) y where o.customer_id = c.id) x
-- name: correlated_twice
select c.id, (select max((select sum(i.qty) from items i where i.order_id = o.id and i.qty <> c.id)) from orders o where o.customer_id = c.id) as m from customers c
-- name: subquery_in_join_condition
select c.id, o.id as order_id from customers c join orders o on o.customer_id = c.id and o.amount = (select max(x.amount) from orders x where x.customer_id = c.id)
-- name: subquery_in_having
select customer_id, sum(amount) from orders group by customer_id having sum(amount) > (select avg(credit) from customers)
-- name: subquery_in_order
select c.id, c.name from customers c order by (select count(*) from orders o where o.customer_id = c.id), c.id
-- name: union_all
select id, name from customers union all select id, status from orders
-- name: union
select province from customers union select status from orders
-- name: union_names_of_first
select id as a, name as b from customers union all select customer_id, note from orders union all select 1, 'x'
-- name: intersect
select id from customers intersect select customer_id from orders
-- name: intersect_all
select province, segment from customers intersect all select status, note from orders
-- name: except
select id from customers except select customer_id from orders where status = 'open'
-- name: except_all
select province from customers except all select status from orders
-- name: set_precedence
select id from customers union (select customer_id from orders intersect select order_id from items)
-- name: set_ordered
(select id, name from customers) union all (select id, name from employees) order by name nulls last, id limit 5
-- name: set_of_limited
(select id from customers order by credit, id limit 2) union all (select id from employees order by salary desc nulls last, id limit 2)
-- name: set_in_subquery
select name from customers where id in (select customer_id from orders union select boss_id from employees)
-- name: set_in_from
select kind, count(*) as n from (select 'c' as kind, id from customers union all select 'o', id from orders where amount > 2) t group by kind
-- name: cte
with big as (select id, customer_id, amount from orders where amount > 2) select c.name, b.amount from customers c join big b on b.customer_id = c.id
-- name: cte_chain
with a as (select id, amount * 2 as x from orders), b as (select id, x + 1 as y from a where x > 2), c as (select sum(y) as z from b) select z from c
-- name: cte_used_twice
with t as (select customer_id, sum(amount) as total from orders group by customer_id) select a.customer_id, b.total from t a join t b on a.total < b.total
-- name: cte_unused
with unused as (select id from events where score > 3), used as (select name from customers) select name from used
-- name: cte_shadows_table
with orders as (select id as customer_id, credit as amount from customers) select customer_id, amount from orders
-- name: cte_shadowed_inside
with t as (select id from customers) select x.id, (with t as (select id from employees where boss_id = x.id) select count(*) from t) as below from t x
-- name: cte_column_list
with t (a, b) as (select id, name from customers) select b, a from t where a > 1
-- name: cte_materialized
with t as materialized (select province, credit from customers where segment = 'a') select province, max(credit) from t group by province
-- name: cte_in_subquery
select id from customers where id in (with t as (select customer_id from orders where status = 'open') select customer_id from t)
-- name: cte_correlated
select c.id, (with t as (select amount from orders o where o.customer_id = c.id) select max(amount) from t) as top from customers c
-- name: cte_before_union
with t as (select id, name from customers) select id from t union all select id + 1 from t where name > '11'
-- name: recursive_numbers
with recursive n (i) as (select 1 union all select i + 1 from n where i < 4) select i, count(o.id) as orders from n left join orders o on o.customer_id = i group by i
-- name: recursive_tree
with recursive chain as (select id, name, boss_id, 1 as depth from employees where boss_id is null union all select e.id, e.name, e.boss_id, c.depth + 1 from employees e join chain c on c.id = e.boss_id where c.depth < 4) select id, name, depth from chain
-- name: recursive_path
with recursive path (id, way, cost) as (select id, name, salary from employees where dept = 'a' union all select e.id, p.way || '>' || e.name, p.cost + e.salary from path p join employees e on e.boss_id = p.id where length(p.way) < 14) select way, cost from path
-- name: recursive_union
with recursive reach (id) as (select id from employees where dept = 'a' union select e.id from employees e, reach r where e.boss_id = r.id) select id from reach
-- name: recursive_swapped
with recursive s (a, b, n) as (select id, score, 1 from events union all select b, a, n + 1 from s where n < 3) select a, b, n from s
-- name: recursive_cycle
with recursive walk (id) as (select id from employees where dept = 'a' union all select e.id from employees e join walk w on e.boss_id = w.id) cycle id set looped using route select id, looped from walk
-- name: recursive_search
with recursive walk (id, n) as (select id, 1 from employees where dept = 'a' union all select e.id, w.n + 1 from employees e join walk w on e.boss_id = w.id where w.n < 4) search breadth first by id set place select id, n from walk order by place, id
-- name: recursive_forward
with recursive b as (select id from a where id > 1), a as (select id from customers) select id from b
-- name: recursive_two
with recursive t (n) as (select id from customers where segment = 'a' union all select n + 1 from t where n < 6), u (m) as (select n from t union all select m * 2 from u where m < 8) select m from u
-- name: deep_nesting
select a.x from (select b.x from (select c.x from (select d.id + 1 as x from customers d where d.credit > 1) c where c.x > 1) b) a
