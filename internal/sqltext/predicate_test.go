package sqltext

import (
	"fmt"
	"strings"
	"testing"
)

// conditions writes Where and WhereExact as one line.
func conditions(st *Statement) string {
	var words []string
	for _, p := range st.Where {
		w := fmt.Sprintf("%s.%s %s %v", p.Table, p.Column, p.Op, p.Args)
		if p.Literal {
			w += " literal"
		}
		if p.Array {
			w += " array"
		}
		words = append(words, w)
	}
	if st.WhereExact {
		words = append(words, "exact")
	}
	return strings.Join(words, "; ")
}

func TestWhere(t *testing.T) {
	t.Parallel()
	for _, row := range [][2]string{
		{`SELECT * FROM t WHERE id = $1`, "t.id = [0]; exact"},
		{`SELECT * FROM "t" WHERE "t"."id" = $2 AND "t"."deleted_at" IS NULL ORDER BY "t"."id" LIMIT $3`, "t.id = [1]; exact"},
		{`SELECT * FROM s.t AS x WHERE x.id = $1`, "t.id = [0]; exact"},
		{`SELECT * FROM s.t WHERE s.t.id = $1`, "t.id = [0]; exact"},
		{"SELECT * FROM `t` WHERE `t`.`id` = ? AND b = ?", "t.id = [0]; t.b = [1]; exact"},
		{`SELECT * FROM t WHERE id = ?2 AND b = ?1`, "t.id = [1]; t.b = [0]; exact"},
		{`SELECT * FROM t WHERE ID = 5 AND "Name" = 'x' AND ok = true`, "t.id = [] literal; t.Name = [] literal; t.ok = [] literal; exact"},
		{`SELECT * FROM t WHERE id IN ($1, $2, 3)`, "t.id in [0 1] literal; exact"},
		{`SELECT * FROM t WHERE id = ANY($1) AND x = SOME($2::int[])`, "t.id in [0] array; t.x in [1] array; exact"},
		{`SELECT * FROM t WHERE ((id = $1) AND (b = $2))`, "t.id = [0]; t.b = [1]; exact"},
		{`SELECT * FROM t WHERE $1 = id AND -1 = b`, "t.id = [0]; t.b = [] literal; exact"},
		{`SELECT * FROM t WHERE id = $1::bigint AND b = '1'::varchar(10)`, "t.id = [0]; t.b = [] literal; exact"},
		{`UPDATE t SET a = $1 WHERE id = $2`, "t.id = [1]; exact"},
		{`UPDATE t AS x SET a = $1 WHERE x.id = $2 RETURNING *`, "t.id = [1]; exact"},
		{`DELETE FROM t WHERE id = $1`, "t.id = [0]; exact"},
		{`WITH x AS (SELECT 1 FROM u WHERE z = $1) SELECT * FROM t WHERE id = $2`, "t.id = [1]; exact"},
		{`SELECT * FROM t WHERE id = $1 GROUP BY a HAVING b = $2`, "t.id = [0]; exact"},
		{`SELECT * FROM t WHERE id = $1 FOR UPDATE`, "t.id = [0]; exact"},
		{`SELECT * FROM t WHERE id = @id`, ""},
		{`SELECT * FROM t WHERE id = :id`, "t.id = [] literal; exact"},

		// The rest of the condition can only make the answer smaller.
		{`SELECT * FROM t WHERE id = $1 AND a > $2`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = $1 AND (a = $2 OR b = $3)`, "t.id = [0]"},
		{`SELECT * FROM t WHERE a BETWEEN $1 AND $2 AND id = $3`, "t.id = [2]"},
		{`SELECT * FROM t WHERE id = $1 AND a NOT IN ($2)`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = $1 AND a IN (SELECT b FROM u WHERE c = $2)`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = $1 AND a IS NOT NULL`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = $1 AND f(a) = $2 AND b::text = $3 AND c = d AND e = $4 + 1`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = $1 AND NOT a = $2`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = $1 AND u.a = $2`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = $1 AND a = (SELECT 1)`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = $1 AND a = $2 COLLATE "C" AND b = $3 IS TRUE AND (c) = 4`, "t.id = [0]"},
		{`SELECT * FROM t WHERE id = ANY(ARRAY[1, 2]) AND b = $1`, "t.b = [0]"},
		{`SELECT * FROM t WHERE id = ANY($1) = true`, ""},
		{`SELECT * FROM t WHERE id = ALL($1)`, ""},
		{`SELECT * FROM t WHERE id IN ($1) = false`, ""},

		// Nothing is known.
		{`SELECT * FROM t`, ""},
		{`SELECT * FROM t WHERE true`, ""},
		{`SELECT * FROM t WHERE id = $1 OR a = $2`, ""},
		{`SELECT * FROM t WHERE id = $1 AND a = $2 OR b = $3`, ""},
		{`SELECT * FROM t WHERE NOT (id = $1 AND a = $2)`, ""},
		{`SELECT * FROM t WHERE CASE WHEN a AND id = $1 AND b THEN true END`, ""},
		{"SELECT * FROM t WHERE id = ? AND a = b || c = ?", ""},
		{"SELECT * FROM t WHERE id = ? XOR a = ?", ""},
		{"SELECT * FROM t WHERE id = ? AND offset = ? OR a = ?", ""},
		{`SELECT * FROM t, u WHERE t.id = $1`, ""},
		{`SELECT * FROM t AS x (a, id) WHERE id = $1`, ""},
		{`SELECT * FROM t x (id) WHERE x.id = $1`, ""},
		{`SELECT * FROM t JOIN u ON true WHERE t.id = $1`, ""},
		{`SELECT * FROM t WHERE id = $1 UNION SELECT * FROM u`, ""},
		{`(SELECT * FROM t WHERE id = $1)`, ""},
		{`SELECT * FROM (SELECT * FROM t WHERE id = $1) x`, ""},
		{`SELECT * FROM (SELECT * FROM t) x WHERE id = $1`, ""},
		{`WITH x AS (SELECT * FROM t) SELECT * FROM x WHERE id = $1`, ""},
		{`SELECT * FROM f(1) WHERE id = $1`, ""},
		{`UPDATE t SET a = 1 FROM u WHERE id = $1`, ""},
		{`DELETE FROM t USING u WHERE id = $1`, ""},
		{`INSERT INTO t SELECT * FROM u WHERE id = $1`, ""},
		{`SELECT * FROM t WHERE id = $1; SELECT 1`, ""},
		{`EXPLAIN SELECT * FROM t WHERE id = $1`, ""},
	} {
		if got := conditions(Parse(row[0])); got != row[1] {
			t.Errorf("%s\n got  %q\n want %q", row[0], got, row[1])
		}
	}
}

// The index of a "?" must not be led astray by operators that contain one, nor by
// a word before it.
func TestParametersAreCounted(t *testing.T) {
	t.Parallel()
	for _, before := range []string{
		"a LIKE ?", "a NOT LIKE ? ESCAPE ?", "a GLOB ?", "a REGEXP ?", "a RLIKE ?", "a MATCH ?", "a BETWEEN ? AND ?", "a IS ?", "a IS NOT ?", "a IS DISTINCT FROM ?", "a IN (?, ?)",
		"NOT ?", "CASE ? WHEN ? THEN ? ELSE ? END = ?", "a > INTERVAL ? DAY", "a DIV ? > ?", "a MOD ? > ?", "BINARY ? = a", "a ->> ? = ?", "a || ? > ?", "a - ? > ?", "a <= ?", "a != ?", "a <> ?", "f(?, ?)",
		"MATCH (a) AGAINST (? IN BOOLEAN MODE)", "CAST(? AS int) > ?", "a[?] > ?", "a SOUNDS LIKE ?", "a COLLATE NOCASE > ?", "a AT TIME ZONE ? > ?", "EXISTS (SELECT 1 FROM u WHERE b = ? LIMIT ? OFFSET ?)",
		"a > ? + ?", "a > -?", "(a, b) > (?, ?)", "a /* ? */ > ?", "a > ? -- ?\n", "a > '?' || ?", "`?` > ?",
	} {
		text := "SELECT * FROM t WHERE " + before + " AND id = ?"
		n := strings.Count(strings.NewReplacer("/* ? */", "", "-- ?", "", "'?'", "", "`?`", "").Replace(before), "?")
		toks, ok := scan(text, nil)
		if last := toks[len(toks)-2]; !ok || last.kind != kParam || last.arg != int32(n) {
			t.Errorf("%s\n the last parameter is number %d, want %d", text, last.arg, n)
		}
	}
}
