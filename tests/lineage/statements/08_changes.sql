-- name: update_from
update orders set amount = i.price + 1 from items as i where i.order_id = orders.id and i.line = 1
-- name: update_all_rows
update customers set name = upper(name), province = segment
-- name: update_where
update orders set status = 'late', note = status || '!' where placed < date '2024-02-01' and amount > 2
-- name: update_several_from_query
update customers c set (name, credit) = (select max(e.name), sum(e.salary) from employees e where e.boss_id = c.id) where c.segment = '10'
-- name: update_row
update employees set (dept, salary) = row (name, salary * 2) where boss_id is not null
-- name: update_join_using
update orders o set note = p.name from (items i join products p on p.id = i.product_id) where i.order_id = o.id and i.line = 2
-- name: update_element
update events set marks[1] = score, kind = default where id > 2
-- name: update_self_join
update employees as e set dept = b.dept from employees as b where b.id = e.boss_id
-- name: update_with
with best as (select customer_id, max(amount) as top from orders group by customer_id) update customers set credit = best.top from best where best.customer_id = customers.id
-- name: update_returning
update orders as o set amount = amount * 2, status = c.segment from customers as c where c.id = o.customer_id returning o.id, amount, c.name as buyer, o.*
-- name: update_returning_old_and_new
update products set list_price = list_price + id where category = '10' returning with (old as before, new as after) before.list_price as was, after.list_price as is_now, after.name
-- name: update_thai
update ทะเบียน set จังหวัด = บ้าน.อำเภอ from บ้าน where บ้าน.รหัสบ้าน = ทะเบียน.รหัสบ้าน
-- name: delete_where
delete from orders where status = 'open' and amount > 2
-- name: delete_using
delete from orders as o using customers as c where c.id = o.customer_id and c.segment = '10'
-- name: delete_exists
delete from customers where not exists (select 1 from orders where orders.customer_id = customers.id and orders.amount > 3)
-- name: delete_in_with
with old as (select id from employees where hired < date '2024-02-01') delete from orders where customer_id in (select id from old)
-- name: delete_returning
delete from employees e using customers c where c.id = e.boss_id returning e.id, e.name || c.name as both_names, salary
-- name: merge_update_only
merge into customers as c using employees as e on e.id = c.id when matched and e.salary > 2 then update set name = e.name, credit = c.credit + e.salary
-- name: merge_insert_only
merge into shop.stock as s using (select distinct id, name from products where list_price > 2) as p on p.id = s.product_id when not matched then insert (product_id, place) values (p.id, p.name)
-- name: merge_all_clauses
merge into customers c using (select id, max(name) as name, count(*) as n from employees group by id) e on e.id = c.id when matched and c.segment = '10' then delete when matched then update set name = e.name when not matched and e.n > 0 then insert (id, name) values (e.id, e.name)
-- name: merge_by_source
merge into customers c using orders o on o.id = c.id when not matched by source and c.credit > 2 then delete when not matched by source then update set segment = c.province when matched then do nothing when not matched by target then insert (id, segment) values (o.id, o.status)
-- name: merge_returning
merge into products p using customers c on c.id = p.id when matched and c.credit > 2 then update set name = c.name when matched then delete when not matched then insert (id, name) values (c.id, c.segment) returning p.id, p.name, old.name as was, c.province
-- name: merge_returning_star
merge into copies t using (select id, name as n from customers where credit > 2) s on s.id = t.id when not matched then insert values (s.id, s.n, 1) returning *
-- name: moved_rows
with gone as (delete from orders where status = 'open' returning id, note, amount) insert into copies select id, note, amount * 2 from gone
-- name: changed_rows_read
with changed as (update orders set amount = amount + id where status = 'open' returning id, customer_id, amount) select c.name, sum(changed.amount) as total from changed join customers c on c.id = changed.customer_id group by c.name
-- name: inserted_rows_read
with put as (insert into copies (id, name) select id, name from customers where segment = '10' returning id, name as called, amount) select put.called, put.amount, o.status from put join orders o on o.id = put.id
-- name: changed_and_not_read
with d as (delete from employees where salary > 3), m as (merge into customers c using orders o on o.id = c.id when matched then update set credit = o.amount returning c.id, c.credit) select m.credit, p.name from m join products p on p.id = m.id
-- name: upsert
insert into customers (id, name, credit) select id, name, salary from employees where dept = '10' on conflict (id) do update set name = excluded.name, credit = customers.credit + excluded.credit where customers.segment = '11'
-- name: upsert_returning
insert into products as p (id, name) select id, status from orders on conflict (id) do update set name = p.name || excluded.name returning p.id, p.name, p.category
-- name: insert_returning
insert into copies as k (id, amount) select customer_id, amount from orders where note > '10' returning k.amount as put, k.id, name
-- name: select_into
select c.segment, count(o.note) as n into made_into from customers c join orders o on o.customer_id = c.id group by c.segment
-- name: create_recursive_view
create recursive view made_chain (id, top) as select id, name from employees where boss_id is null union all select e.id, made_chain.top from employees e join made_chain on made_chain.id = e.boss_id
-- name: join_using_alias
select j.id, j.*, c.name, o.note from customers c join orders o using (id) as j where j.id > 2
-- name: join_using_alias_full
select k.id, k.name, e.dept from employees e full join products p using (id, name) as k
-- name: order_by_using
select id, name from customers order by province using >, id using operator(pg_catalog.<) nulls first
-- name: aggregate_order_by_using
select segment, string_agg(name, ',' order by credit using >, id) as names from customers group by segment
