-- name: group_by
select province, count(*) as n, sum(credit) as total, avg(credit) as mean, min(joined) as first, max(name) as last from customers group by province
-- name: group_by_position
select segment, province, count(*) from customers group by 1, 2
-- name: group_by_output_name
select extract(year from joined) as y, count(*) as n from customers group by y
-- name: group_by_input_before_output
select upper(segment) as province, count(*) as n from customers group by province, segment
-- name: group_by_expression
select left(name, 2) as prefix, sum(credit) from customers group by left(name, 2)
-- name: group_by_key
select c.id, c.name, c.province, count(o.id) as n from customers c left join orders o on o.customer_id = c.id group by c.id
-- name: aggregate_of_all
select count(*) as n, sum(amount) as total, count(distinct customer_id) as who from orders where status = 'open'
-- name: having
select province from customers group by province having sum(credit) > 8
-- name: having_count
select customer_id, max(amount) from orders group by customer_id having count(*) > 1 and min(placed) > date '2024-01-10'
-- name: filter_clause
select province, count(*) filter (where segment = 'a') as a, sum(credit) filter (where joined > date '2024-02-01') as late from customers group by province
-- name: rollup
select province, segment, sum(credit) as s from customers group by rollup (province, segment)
-- name: cube
select province, segment, count(*) as n, grouping(province, segment) as g from customers group by cube (province, segment)
-- name: grouping_sets
select province, segment, joined, max(credit) from customers group by grouping sets ((province), (segment, joined), ())
-- name: grouping_mixed
select status, customer_id, placed, sum(amount) from orders group by status, rollup (customer_id, placed)
-- name: count_distinct
select count(distinct province) as p, count(distinct (segment, province)) as ps, count(name) as named from customers
-- name: string_agg_ordered
select province, string_agg(name, ',' order by credit desc, id) as names from customers group by province
-- name: array_agg_ordered
select customer_id, array_agg(amount order by id) as amounts, array_agg(distinct status order by status) as states from orders group by customer_id
-- name: string_agg_unordered
-- excluded: without an order the text depends on the physical order of rows
select province, string_agg(name, ',') as names from customers group by province
-- name: percentiles
select status, percentile_cont(0.5) within group (order by amount) as median, percentile_disc(0.9) within group (order by amount desc) as high, mode() within group (order by customer_id) as usual from orders group by status
-- name: hypothetical_rank
select rank(3) within group (order by amount) as place from orders
-- name: json_aggregates
select province, jsonb_agg(name order by id) as names, jsonb_object_agg(id, segment order by id) as segments from customers group by province
-- name: boolean_aggregates
select customer_id, bool_and(amount > 2) as all_big, bool_or(status = 'open') as any_open, every(placed > date '2024-01-20') as late from orders group by customer_id
-- name: statistics
select count(*) as n, stddev_pop(qty::numeric) as s, var_samp(qty::numeric) as v, round(corr(qty, line)::numeric, 6) as c, round(regr_slope(qty, product_id)::numeric, 6) as slope from items
-- name: nested_aggregation
select max(n) as most, avg(total) as mean from (select customer_id, count(*) as n, sum(amount) as total from orders group by customer_id) t
-- name: aggregate_over_aggregate
select province, sum(sum(credit)) over () as all_of_it, rank() over (order by sum(credit)) as r from customers group by province
-- name: window_sum
select id, sum(amount) over (partition by customer_id order by placed, id) as running from orders
-- name: window_rank
select id, rank() over (partition by dept order by salary desc) as r, dense_rank() over (order by hired) as d, percent_rank() over (order by salary) as p, cume_dist() over (order by salary) as c from employees
-- name: window_row_number
select id, row_number() over (partition by dept order by salary, id) as n from employees
-- name: window_row_number_ties
-- excluded: which of equal rows is first is up to their physical order
select id, row_number() over (order by dept) as n from employees
-- name: window_lag_lead
select id, lag(amount) over (partition by customer_id order by id) as before, lead(status, 1, 'none') over (order by id) as after from orders
-- name: window_first_last
select id, first_value(name) over w as first, last_value(name) over (w rows between unbounded preceding and unbounded following) as last, nth_value(salary, 2) over w as second from employees window w as (partition by dept order by hired, id)
-- name: window_named
select id, sum(salary) over w as s, count(*) over w as n, avg(salary) over (w order by hired, id) as running from employees window w as (partition by dept)
-- name: window_named_chain
select id, max(salary) over b as m from employees window a as (partition by dept), b as (a order by hired, id)
-- name: window_frames
select id, sum(amount) over (order by id rows between 1 preceding and 1 following) as three, count(*) over (order by customer_id range between 1 preceding and current row) as near, sum(amount) over (order by status, customer_id groups between 1 preceding and current row exclude ties) as grouped from orders
-- name: window_filter
select id, count(*) filter (where status = 'open') over (partition by customer_id) as open from orders
-- name: window_ntile
select id, ntile(3) over (order by salary, id) as third from employees
-- name: window_in_expression
select id, amount / nullif(sum(amount) over (partition by customer_id), 0) as share, case when row_number() over (partition by customer_id order by placed, id) = 1 then status end as first_status from orders
-- name: window_then_filter
select id, customer_id, amount from (select o.*, row_number() over (partition by customer_id order by amount desc, id) as n from orders o) t where n = 1
-- name: window_distinct
select distinct dept, max(salary) over (partition by dept) as top from employees
-- name: order_by_aggregate
select province from customers group by province order by sum(credit) desc nulls last, province limit 2
-- name: order_by_window
select id from orders order by sum(amount) over (partition by customer_id) nulls first, id limit 4
