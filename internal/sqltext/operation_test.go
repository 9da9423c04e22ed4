package sqltext

import (
	"strings"
	"testing"
)

func TestOperations(t *testing.T) {
	t.Parallel()
	for want, texts := range map[Operation][]string{
		Select: {"SELECT 1", "select*from t", "VALUES (1), (2)", "TABLE t", "WITH x AS (SELECT 1) SELECT * FROM x",
			"(SELECT 1)", "((SELECT 1) UNION (SELECT 2)) ORDER BY 1", "WITH x AS (DELETE FROM t RETURNING id) SELECT * FROM x",
			"-- a comment\nSELECT 1", "/* a /* nested */ one */ SELECT 1", " \t\r\n\f SELECT 1", ";;SELECT 1;", "(/**/SELECT 1)",
			"SELECT 1 -- closing", "SELECT 1 /* closing */;"},
		Insert: {"INSERT INTO t VALUES (1)", "insert into t default values", "REPLACE INTO t VALUES (1)", "INSERT OR IGNORE INTO t VALUES (1)",
			"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x"},
		Update:      {"UPDATE t SET a = 1", "WITH x AS (SELECT 1) UPDATE t SET a = 1 FROM x", "UPDATE OR IGNORE t SET a = 1", "UPDATE ONLY t SET a = 1"},
		Delete:      {"DELETE FROM t", "WITH x AS (SELECT 1) DELETE FROM t USING x", "DELETE FROM ONLY t WHERE CURRENT OF c"},
		Merge:       {"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DO NOTHING", "WITH x AS (SELECT 1) MERGE INTO t USING x ON true WHEN MATCHED THEN DELETE"},
		Truncate:    {"TRUNCATE t", "TRUNCATE TABLE ONLY a, b RESTART IDENTITY CASCADE"},
		Copy:        {"COPY t FROM STDIN", "COPY (SELECT 1) TO STDOUT", "COPY t (a, b) TO '/tmp/x' WITH (FORMAT csv)"},
		DDL:         {"CREATE TABLE t (id int)", "ALTER TABLE t ADD COLUMN a int", "DROP TABLE t", "CREATE INDEX ON t (a)", "CREATE EXTENSION x", "GRANT ALL ON t TO u", "REVOKE ALL ON t FROM u", "REFRESH MATERIALIZED VIEW v", "SECURITY LABEL ON TABLE t IS 'x'", "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y", "REASSIGN OWNED BY a TO b"},
		Maintenance: {"VACUUM", "VACUUM (FULL) t", "ANALYZE t", "REINDEX TABLE t", "CLUSTER t USING i", "CHECKPOINT", "COMMENT ON TABLE t IS 'x'"},
		Call:        {"CALL p(1)", "call s.p()"},
		Do:          {"DO $$ BEGIN DELETE FROM t; END $$"},
		Explain:     {"EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "EXPLAIN (FORMAT JSON) DELETE FROM t", "EXPLAIN QUERY PLAN SELECT 1", "EXPLAIN FORMAT=JSON SELECT 1", "EXPLAIN t"},
		Show:        {"SHOW search_path", "DESCRIBE t", "DESC t", "PRAGMA table_info(t)"},
		Set:         {"SET search_path = x", "SET LOCAL x TO 1", "RESET ALL", "DISCARD ALL", "USE db", "PRAGMA foreign_keys = ON"},
		Begin:       {"BEGIN", "begin isolation level serializable", "START TRANSACTION READ ONLY", "BEGIN IMMEDIATE"},
		Commit:      {"COMMIT", "END", "COMMIT AND CHAIN", "PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'"},
		Rollback:    {"ROLLBACK", "ABORT", "ROLLBACK AND NO CHAIN"},
		Savepoint:   {"SAVEPOINT sp0x1", `SAVEPOINT "a b"`},
		RollbackTo:  {"ROLLBACK TO SAVEPOINT sp", "ROLLBACK TO sp", "ROLLBACK WORK TO SAVEPOINT sp"},
		Release:     {"RELEASE SAVEPOINT sp", "RELEASE sp"},
		Lock:        {"LOCK TABLE t IN EXCLUSIVE MODE", "LOCK t"},
		Listen:      {"LISTEN c", "UNLISTEN *"},
		Notify:      {"NOTIFY c, 'x'"},
		Prepare:     {"PREPARE p AS SELECT 1", "DEALLOCATE p", "PREPARE p (int) AS INSERT INTO t VALUES ($1)"},
		Execute:     {"EXECUTE p (1)"},
		Cursor:      {"DECLARE c CURSOR FOR SELECT * FROM t", "FETCH 10 FROM c", "MOVE c", "CLOSE c"},
		Other:       {"LOAD 'x'", "ATTACH DATABASE 'x' AS y"},
		Unknown: {"", "   ", "-- nothing", ";", "?", "FOO", "SELEC 1", "1", "'x'", ")", "(", "SELECT (1", "SELECT 1)", "SELECT 1 FROM", "SELECT 1; FOO", "WITH x AS SELECT 1",
			"SELECT 'unterminated", `SELECT "unterminated`, "SELECT `unterminated", "SELECT $$ unterminated $", "SELECT $a$ unterminated $b$", "SELECT /* unterminated",
			"SELECT /* /* */ unterminated", "SELECT E'unterminated\\'", "SELECT 1 \xff", "SELECT '\xff'", "SELECT 1 \x00", "/*! DELETE FROM t */ SELECT 1", "/*M!100 DELETE FROM t */ SELECT 1",
			`SELECT * FROM U&"d\0061ta"`, `SELECT * FROM U&"d!0061ta" UESCAPE '!'`, "INSERT", "UPDATE", "DELETE t", "SELECT " + strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000)},
	} {
		for _, text := range texts {
			if got := Parse(text).Operation; got != want {
				t.Errorf("%s: operation %v, want %v", abridged(text), got, want)
			}
		}
	}
}

func TestUnknownPromisesNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"FOO", "SELECT 'a", "SELECT nextval('s') FROM t WHERE id = 1 FOR UPDATE; )", strings.Repeat("x", maxText+1)} {
		if got := describe(Parse(text)); got != "unknown maywrite" {
			t.Errorf("%s: %s", abridged(text), got)
		}
	}
}

func TestOperationNamesAreDistinct(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for o := range operations {
		if name := o.String(); name == "" || seen[name] || name != strings.ToLower(name) {
			t.Errorf("operation %d is called %q", o, name)
		} else {
			seen[name] = true
		}
	}
	if operations.String() != "unknown" {
		t.Error("an operation out of range has a name")
	}
}

func TestWhatATextLeavesOfATransaction(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]bool{ // commits, opens
		"BEGIN":                             {false, true},
		"START TRANSACTION READ ONLY":       {false, true},
		"COMMIT":                            {true, false},
		"COMMIT WORK AND NO CHAIN":          {true, false},
		"COMMIT AND CHAIN":                  {true, true},
		"END TRANSACTION AND CHAIN":         {true, true},
		"PREPARE TRANSACTION 'x'":           {true, false},
		"COMMIT PREPARED 'x'":               {},
		"ROLLBACK PREPARED 'x'":             {},
		"ROLLBACK":                          {},
		"ROLLBACK AND CHAIN":                {false, true},
		"ABORT AND NO CHAIN":                {},
		"ROLLBACK TO SAVEPOINT chain":       {},
		"BEGIN; UPDATE t SET a = 1; COMMIT": {true, false},
		"UPDATE t SET a = 1; COMMIT; BEGIN": {true, true},
		"BEGIN; ROLLBACK TO a":              {false, true},
		"BEGIN; SELECT 1":                   {false, true},
		"PREPARE p AS SELECT 1":             {},
		"SELECT commit FROM chain":          {},
	} {
		st := Parse(text)
		if st.Operation == Unknown || [2]bool{st.Commits, st.Opens} != want {
			t.Errorf("%s: %v, commits %v and opens %v, want %v", text, st.Operation, st.Commits, st.Opens, want)
		}
	}
}
