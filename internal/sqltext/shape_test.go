package sqltext

import (
	"strings"
	"testing"
)

func TestShapes(t *testing.T) {
	t.Parallel()
	for want, texts := range map[string][]string{
		`SELECT * FROM users WHERE id = ?`: {
			"select * from users where id=1", "SELECT * FROM users WHERE id = $1", "SELECT  *\n\tFROM users -- x\n WHERE id = 'a';", "/* x */ SELECT * FROM Users WHERE id = -1.5e3",
			"SELECT * FROM users WHERE id = $$a$$", "SELECT * FROM users WHERE id = E'a\\'b'", "SELECT * FROM users WHERE id = ?", "SELECT * FROM users WHERE id = :id",
			"SELECT * FROM users WHERE id = $1::bigint", "SELECT * FROM users WHERE id = '1'::varchar(10)::text[]", "SELECT * FROM users WHERE id = true",
			"SELECT * FROM users WHERE id = U&'x'", "SELECT * FROM users WHERE id = B'01'", "SELECT * FROM users WHERE id = 'a'\n'b'", "SELECT * FROM users WHERE id = .5",
			"SELECT * FROM users WHERE id = +1", "SELECT * FROM users WHERE id = 0x1F", "SELECT * FROM users WHERE id=-1", "SELECT * FROM users WHERE id = $1::timestamp(3) with time zone;;",
		},
		`SELECT * FROM "users" WHERE id IN (?)`: {
			`SELECT * FROM "users" WHERE id IN (1)`, `SELECT * FROM "users" WHERE id IN (1,2,3)`, `SELECT * FROM "users" WHERE id IN ($1, $2)`, `SELECT * FROM "users" WHERE id IN ('a', 1, -2, $3::int)`,
		},
		`SELECT * FROM t WHERE (a, b) IN ((?, ?))`:                 {"SELECT * FROM t WHERE (a, b) IN ((1, 2))", "SELECT * FROM t WHERE (a,b) IN (($1,$2),($3,$4),(5,'x'))"},
		`INSERT INTO t(a, b) VALUES (?, ?)`:                        {"INSERT INTO t(a, b) VALUES (1, 2)", "insert into t (a,b) values ($1,$2),($3,$4),(5,6)"},
		`INSERT INTO t(a, b) VALUES (?, ?) RETURNING id`:           {"INSERT INTO t (a, b) VALUES ($1, $2) RETURNING id", "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) RETURNING id"},
		`INSERT INTO t VALUES (?, NULL), (?, ?)`:                   {"INSERT INTO t VALUES (1, NULL), (2, 3)", "INSERT INTO t VALUES (1, NULL), (2, NULL), (4, 5), (6, 7)"},
		`INSERT INTO t VALUES (?, DEFAULT)`:                        {"INSERT INTO t VALUES ($1, DEFAULT), ($2, default)"},
		`SELECT ARRAY[?]`:                                          {"SELECT ARRAY[1]", "SELECT ARRAY[1, 2, 3]", "SELECT array['a','b']"},
		`SELECT ARRAY[[?]]`:                                        {"SELECT ARRAY[[1, 2], [3, 4]]"},
		`SELECT * FROM t WHERE a IS NULL`:                          {"SELECT * FROM t WHERE a is null"},
		`SELECT * FROM t WHERE a IS NOT NULL`:                      {"SELECT * FROM t WHERE a IS NOT NULL"},
		`SELECT * FROM t WHERE a IS TRUE`:                          {"SELECT * FROM t WHERE a is true"},
		`SELECT * FROM t WHERE a IS NOT FALSE`:                     {"SELECT * FROM t WHERE a IS NOT false"},
		`SELECT a - ?, b + ? FROM t`:                               {"SELECT a - 1, b+2 FROM t", "SELECT a -1, b +$2 FROM t"},
		`SELECT * FROM t ORDER BY 1, a DESC LIMIT ? OFFSET ?`:      {"SELECT * FROM t ORDER BY 1, a DESC LIMIT 10 OFFSET 5", "SELECT * FROM t ORDER BY 1,a desc LIMIT $1 OFFSET $2"},
		`SELECT a, count(*) FROM t GROUP BY 1 HAVING count(*) > ?`: {"SELECT a, COUNT(*) FROM t GROUP BY 1 HAVING COUNT(*) > 5"},
		`SELECT data ? ? AND data ?| ? AND data ?& ARRAY[?] AND data @? ? FROM t`: {
			`SELECT data ? 'a' AND data ?| $1 AND data ?& array['x','y'] AND data @? '$.a' FROM t`,
		},
		`SELECT "From", "a.b"."c d" FROM "select"`: {`select "From", "a.b"."c d" from "select"`},
		"SELECT `a` FROM `t` WHERE `id` = ?":       {"select `a` from `t` where `id` = 5"},
		`EXPLAIN (ANALYZE off) SELECT ?`:           {"EXPLAIN (ANALYZE off) SELECT 1"},
		`SAVEPOINT ?`:                              {"SAVEPOINT sp1", "savepoint sp0xc000123"},
		`ROLLBACK TO SAVEPOINT ?`:                  {"ROLLBACK TO SAVEPOINT sp1", "ROLLBACK TO x"},
		`RELEASE SAVEPOINT ?`:                      {"RELEASE sp1"},
		`SELECT ?; DELETE FROM t`:                  {"SELECT 1; DELETE FROM t;"},
		`SELECT a[?] FROM t`:                       {"SELECT a[1] FROM t", "SELECT a[$1] FROM t"},
		`VALUES (?), (?, ?)`:                       {"VALUES (1), (2), (3, 4)"},
		`SELECT * FROM t WHERE a = ANY (?)`:        {"SELECT * FROM t WHERE a = ANY($1)", "SELECT * FROM t WHERE a = any('{1,2}'::int[])"},
	} {
		for _, text := range texts {
			if got := Parse(text).Shape; got != want {
				t.Errorf("%s\n got  %s\n want %s", text, got, want)
			}
		}
	}
}

func TestStatementsThatDifferHaveDifferentShapes(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{
		{"SELECT * FROM t WHERE a IS NULL", "SELECT * FROM t WHERE a IS NOT NULL"},
		{"SELECT * FROM t WHERE a = NULL", "SELECT * FROM t WHERE a = 1"},
		{"SELECT * FROM t WHERE a IN (1)", "SELECT * FROM t WHERE a NOT IN (1)"},
		{`SELECT * FROM "A"`, `SELECT * FROM "a"`},
		{`SELECT * FROM "a.b"`, `SELECT * FROM "a"."b"`},
		{"SELECT * FROM t ORDER BY 1", "SELECT * FROM t ORDER BY 2"},
		{"SELECT a - 1 FROM t", "SELECT a, -1 FROM t"},
		{"SELECT a::int FROM t", "SELECT a::text FROM t"},
		{"SELECT * FROM t WHERE a IN (1, b)", "SELECT * FROM t WHERE a IN (1)"},
		{"SELECT * FROM t WHERE a IN (SELECT 1)", "SELECT * FROM t WHERE a IN (1)"},
		{"SELECT data ? 'a'", "SELECT data ?| 'a'"},
		{"SELECT * FROM t FOR UPDATE", "SELECT * FROM t FOR SHARE"},
		{"INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1, 2)"},
		{"EXPLAIN (ANALYZE off) SELECT 1", "EXPLAIN (ANALYZE on) SELECT 1"},
		{"SELECT 1; DELETE FROM t", "SELECT 1"},
		{"SELECT a b FROM t", "SELECT ab FROM t"},
		{"SELECT f (a) FROM t", "SELECT f, (a) FROM t"},
	} {
		a, b := Parse(pair[0]), Parse(pair[1])
		if a.Shape == b.Shape || a.Fingerprint == b.Fingerprint {
			t.Errorf("%s and %s share the shape %s", pair[0], pair[1], a.Shape)
		}
	}
}

func TestShapesHoldNoValues(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"SELECT * FROM t WHERE a = 's3cret'", "SELECT * FROM t WHERE a = E's3\\'s3cret'", "SELECT $$s3cret$$", "SELECT $a$ s3cret $a$", "SELECT 's3cret", "SELECT $$s3cret", "SELECT \"s3cret",
		"SELECT E's3cret", "FOO 's3cret'", "ALTER ROLE x PASSWORD 's3cret'", "SELECT /* s3cret */ 1", "SELECT 1 -- s3cret", "SELECT /* s3cret", "SELECT N's3cret', U&'s3cret' UESCAPE '!'",
		"SELECT 'a''s3cret'", "SELECT 'a'\n's3cret'", "COPY t FROM '/s3cret'", "CALL p('s3cret')", "SET x TO 's3cret'", "SELECT '\xff s3cret'", "SELECT x's3cret'",
	} {
		if shape := Parse(text).Shape; strings.Contains(shape, "s3cret") {
			t.Errorf("%q keeps its value: %s", text, shape)
		}
	}
}

func TestShapeIsItsOwnShape(t *testing.T) {
	t.Parallel()
	for _, text := range seeds() {
		shape := Parse(text).Shape
		if again := Parse(shape).Shape; again != shape {
			t.Errorf("%s\n shape       %s\n of which is %s", abridged(text), abridged(shape), abridged(again))
		}
	}
}

func TestLongListsFold(t *testing.T) {
	t.Parallel()
	list := strings.TrimSuffix(strings.Repeat("?,", 100_000), ",")
	if got, want := Parse("SELECT * FROM t WHERE a IN ("+list+")").Shape, "SELECT * FROM t WHERE a IN (?)"; got != want {
		t.Errorf("shape %s", abridged(got))
	}
	rows := strings.TrimSuffix(strings.Repeat("(1,'x',NULL),", 50_000), ",")
	if got, want := Parse("INSERT INTO t VALUES "+rows).Shape, "INSERT INTO t VALUES (?, ?, NULL)"; got != want {
		t.Errorf("shape %s", abridged(got))
	}
}
