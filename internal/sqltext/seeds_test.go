package sqltext

import "strings"

// seeds are the texts with which fuzzing and the properties of shapes begin.
func seeds() []string {
	list := []string{
		"", ";", "?", "'", `"`, "`", "$", "$$", "$a$", "--", "/*", "(", ")", "[", "]", "::", ":", ".", "\\", "\x00", "\xff", "E'", "U&\"", "?|", "@?",
		"SELECT 1", "SELECT * FROM t WHERE a = 'x' AND b IN (1, 2, 3)", "INSERT INTO t (a) VALUES (1), (2), (NULL)", "SELECT data ? 'a' ? ? ?| ?& FROM t",
		"SELECT a ?- b, c ?# d, ?? ???", "SELECT 1 ? 2 ? $1 ?", "SELECT ?1, ?2 ?3", "SELECT :a, @b, $c", "WITH RECURSIVE x AS (SELECT 1 UNION SELECT * FROM x) SELECT * FROM x FOR UPDATE",
		"SELECT a[1:2], b[:n], ARRAY[[1], [2, 3]] FROM t", "SELECT 'a' 'b'\n'c' E'\\'' $$x$$ $y$ $$ $y$", "SELECT 1.5e-3, .5, 1., 0x1f, 1_000, 1..2, 1e, 1a, $1a",
		"SELECT -1, - 1, a-1, a - -1, (1)-1, -(-1), 2*-1, - -1, +-1, 5--1\n", "SELECT x::int::text, 'x'::\"T\"(1)[], $1::timestamp(3) with time zone, ? :: y . z",
		"EXPLAIN (ANALYZE, VERBOSE off) SELECT 1", "EXPLAIN (ANALYZE", "UPDATE t SET a = a + 1 WHERE id = ANY($1) OR b IS NOT TRUE", "DELETE FROM t USING u", "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
		"SELECT count(*) FROM t GROUP BY 1, 2 ORDER BY 1 DESC, 2, 3 LIMIT 4", "SELECT * FROM t ORDER BY 1 + 2, (3), CASE WHEN 1 THEN 2 END", "GROUP BY 1,,2 3", "VALUES (1), (2) , (3, 4), 5 VALUES", "VALUES ((1), (2)), ((3), (4))",
		"x IN (1, (2), ((3)), [4], IN (5, 6))", "ARRAY[1, ARRAY[2, 3], [4", "SAVEPOINT x", "ROLLBACK TO x; SELECT 1", "SELECT true, NOT true, IS true, null", "SELECT TRUE::bool IS TRUE::bool",
		"0''?&0", "0::A(0", "DECLARE", "PREPARE x", "SELECT a IN (1,", "SELECT a IN (1, 2,", "SELECT 1 WHERE a IN ($1,", "SELECT 1 FROM t WHERE a IN ($1, $2,", "SELECT 1 FROM t WHERE a = ANY", "SELECT 1 FROM t WHERE a = -",
		"SELECT 1 FROM t WHERE a IS", "SELECT 1 FROM t WHERE a", "SELECT 1 FROM t WHERE a.", "SELECT 1::", "SELECT ARRAY[1,", "VALUES (1),", "SELECT 1 AS", "SELECT f(", "SELECT a NOT IN", "DECLARE c;SELECT 1", "SELECT ? ? ?& ? ?| ?",
		"SELECT insert(1), set(2) FROM update(3)", "COPY BINARY t FROM STDIN", "SELECT a AS b, c AS \"d\", e f, g \"h\" FROM t AS i (j, k)", "INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a), b = VALUES(b)",
		"SELECT /* /* */ */ 1 -- x", "SELECT 'ä', \"ö\", ü FROM ß", "SELECT \u00a01", "PREPARE x AS SELECT 1; EXECUTE x(1)", "DECLARE c CURSOR FOR SELECT 1",
		"SELECT " + strings.Repeat("(", 1100) + "1" + strings.Repeat(")", 1100), strings.Repeat("a IN (", 50) + strings.Repeat("1, 2)", 50), strings.Repeat("[", 99), strings.Repeat("'a',", 99),
	}
	for _, row := range corpus {
		list = append(list, row.text)
	}
	return list
}
