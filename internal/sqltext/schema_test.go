package sqltext

// schema is the database in which the corpus is run. Every function that writes
// is defined by the user, so that no name gives it away.
const schema = `
CREATE SCHEMA s;
CREATE TABLE users (id bigserial PRIMARY KEY, name text, email text, age int, company_id bigint, data jsonb DEFAULT '{}', tags text[],
	active bool DEFAULT true, created_at timestamptz DEFAULT now(), updated_at timestamptz, deleted_at timestamptz);
CREATE TABLE orders (id bigserial PRIMARY KEY, user_id bigint REFERENCES users ON DELETE CASCADE, total numeric(10,2), note text, created_at timestamptz DEFAULT now());
CREATE TABLE companies (id bigserial PRIMARY KEY, name text, parent_id bigint);
CREATE TABLE "Mixed Case" (id int PRIMARY KEY, "select" int, "a.b" text, "we""ird" int);
CREATE TABLE "order" (id int PRIMARY KEY, "from" int, "user" text);
CREATE TABLE s.items (id int PRIMARY KEY, price numeric, key text, date date, value int, name text, index int);
CREATE TABLE points (id int PRIMARY KEY, p point, b box, l lseg, r int4range, d tsvector, x xml, n inet, u uuid, h bytea);
CREATE TABLE parted (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
CREATE VIEW adults AS SELECT * FROM users WHERE age > 18;
CREATE MATERIALIZED VIEW totals AS SELECT user_id, sum(total) AS total FROM orders GROUP BY user_id;
CREATE SEQUENCE seq;
SELECT setval('seq', 10), lo_create(4711);
INSERT INTO users (name, email, age, company_id, data, tags) SELECT 'u' || i, 'u' || i || '@x', i, i % 3 + 1, '{"a": 1, "b": [1, 2]}', ARRAY['x', 'y'] FROM generate_series(1, 20) i;
INSERT INTO orders (user_id, total) SELECT i % 20 + 1, i FROM generate_series(1, 40) i;
INSERT INTO companies (name) SELECT 'c' || i FROM generate_series(1, 3) i;
INSERT INTO parted VALUES (1, '2024-01-01');
INSERT INTO points VALUES (1, '(1,1)', '(1,1),(0,0)', '((0,0),(1,1))', '[1,5)', 'a b', '<a>1</a>', '10.0.0.1', gen_random_uuid(), 'x');
CREATE FUNCTION touch() RETURNS bigint LANGUAGE sql VOLATILE AS $$ INSERT INTO companies (name) VALUES ('touched') RETURNING id $$;
CREATE FUNCTION insert(int) RETURNS bigint LANGUAGE sql VOLATILE AS $$ INSERT INTO companies (name) VALUES ('touched') RETURNING id $$;
CREATE FUNCTION key(int) RETURNS bigint LANGUAGE sql VOLATILE AS $$ INSERT INTO companies (name) VALUES ('touched') RETURNING id $$;
CREATE FUNCTION total(int) RETURNS bigint LANGUAGE sql VOLATILE AS $$ INSERT INTO companies (name) VALUES ('touched') RETURNING id $$;
CREATE FUNCTION "is"(int) RETURNS bigint LANGUAGE sql VOLATILE AS $$ INSERT INTO companies (name) VALUES ('touched') RETURNING id $$;
CREATE FUNCTION "set"(int) RETURNS bigint LANGUAGE sql VOLATILE AS $$ INSERT INTO companies (name) VALUES ('touched') RETURNING id $$;
CREATE FUNCTION s.now() RETURNS bigint LANGUAGE sql VOLATILE AS $$ INSERT INTO companies (name) VALUES ('touched') RETURNING id $$;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 * 2 $$;
CREATE PROCEDURE proc() LANGUAGE sql AS $$ INSERT INTO companies (name) VALUES ('called') $$;
`
