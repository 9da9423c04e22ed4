package sqltext

import (
	"slices"
	"testing"
)

func TestLocks(t *testing.T) {
	t.Parallel()
	checkDescribed(t, []described{
		{`SELECT * FROM t FOR UPDATE`, "select <t locking"},
		{`select * from t for no key update`, "select <t locking"},
		{`SELECT * FROM t FOR SHARE`, "select <t locking"},
		{`SELECT * FROM t FOR KEY SHARE NOWAIT`, "select <t locking"},
		{`SELECT * FROM t, u FOR UPDATE OF t SKIP LOCKED FOR SHARE OF u`, "select <t <u locking"},
		{"SELECT * FROM t FOR/* */\nUPDATE", "select <t locking"},
		{`SELECT * FROM t LIMIT 1 FOR UPDATE`, "select <t locking limit"},
		{`(SELECT * FROM t FOR UPDATE)`, "select <t locking"},
		{`((SELECT * FROM t) FOR UPDATE)`, "select <t locking"},
		{`SELECT * FROM (SELECT * FROM t FOR UPDATE) x`, "select <t locking"},
		{`WITH x AS (SELECT * FROM t FOR UPDATE) SELECT * FROM x`, "select <t locking"},
		{`SELECT * FROM t LOCK IN SHARE MODE`, "select <t locking"},
		{`SELECT * FROM t x LOCK IN SHARE MODE`, "select <t locking"},
		{`LOCK TABLE t IN ACCESS EXCLUSIVE MODE`, "lock locking"},
		{`SELECT pg_advisory_lock(1)`, "select locking volatile unstable"},
		{`SELECT pg_try_advisory_xact_lock_shared($1, $2)`, "select locking volatile unstable"},
		{`SELECT PG_CATALOG.PG_ADVISORY_UNLOCK_ALL()`, "select locking volatile unstable"},
		{`SELECT "pg_advisory_lock"(1) FROM t`, "select <t locking volatile unstable"},
		{`SELECT GET_LOCK('a', 1)`, "select locking volatile unstable"},
		{`SELECT 'FOR UPDATE', "for update" FROM t`, "select <t ro cache"},
		{`SELECT substring(a FOR 3) FROM t`, "select <t ro cache"},
	})
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	checkDescribed(t, []described{
		{`SELECT nextval('s')`, "select volatile unstable"},
		{`SELECT * FROM nextval('s')`, "select volatile unstable"},
		{`SELECT * FROM t WHERE id = setval('s', 1)`, "select <t volatile unstable"},
		{`SELECT * FROM t ORDER BY currval('s')`, "select <t volatile unstable"},
		{`SELECT lastval()`, "select volatile unstable"},
		{`SELECT pg_notify('c', 'x')`, "select volatile unstable"},
		{`SELECT set_config('a', 'b', false)`, "select volatile unstable session"},
		{`SELECT setseed(0.1)`, "select volatile unstable session"},
		{`SELECT txid_current(), pg_current_xact_id()`, "select volatile unstable"},
		{`SELECT lo_create(0)`, "select volatile unstable"},
		{`SELECT pg_terminate_backend(1)`, "select volatile unstable"},
		{`SELECT pg_walfile_name('0/1')`, "select volatile unstable"},
		{`SELECT query_to_xml('DELETE FROM t', true, true, '')`, "select volatile unstable"},
		{`SELECT * FROM dblink('x', 'DELETE FROM t RETURNING 1') AS x(id int)`, "select volatile unstable opaque maywrite"},
		{`SELECT now(), random() FROM t`, "select <t unstable ro"},
		{`SELECT CURRENT_TIMESTAMP(3), current_date, LocalTime FROM t`, "select <t unstable ro"},
		{`SELECT current_user, session_user FROM t`, "select <t unstable ro"},
		{`SELECT gen_random_uuid() FROM t`, "select <t unstable ro"},
		{`SELECT age(created) FROM t`, "select <t unstable ro"},
		{`SELECT pg_sleep(1)`, "select unstable ro"},
		{`SELECT * FROM t TABLESAMPLE system (10)`, "select <t unstable ro"},
		{`SELECT * FROM t x TABLESAMPLE bernoulli (10) REPEATABLE (1) WHERE a = 1`, "select <t unstable ro"},
		{`SELECT * FROM t WHERE d > 'now'`, "select <t unstable ro"},
		{`SELECT * FROM t WHERE d > timestamp 'Tomorrow 12:00'`, "select <t unstable ro"},
		{`SELECT * FROM t WHERE d > $$yesterday$$::date`, "select <t unstable ro"},
		{`SELECT * FROM t WHERE d > E'\x6eow'::date`, "select <t unstable ro"},
		{`SELECT * FROM t WHERE d > 'nowhere'`, "select <t ro cache"},
		{`SELECT date('now') FROM t`, "select <t unstable ro"},
		{`SELECT date() FROM t`, "select <t unstable ro"},
		{`SELECT strftime('%s') FROM t`, "select <t unstable !strftime"},
		{`SELECT f(1) FROM t`, "select <t !f"},
		{`SELECT S.F(1), "F"(2), f(3), s.f(4) FROM t`, "select <t !s.f !F !f"},
		{`SELECT * FROM f(1) AS x JOIN s.g() ON true`, "select !f !s.g"},
		{`SELECT * FROM t WHERE public.now() > 1`, "select <t !public.now"},
		{`SELECT pg_catalog.now() FROM t`, "select <t unstable ro"},
		{`SELECT "NOW"() FROM t`, "select <t !NOW"},
		{`SELECT coalesce(a, b), nullif(a, 1), greatest(a, b), lower(trim(c)) FROM t`, "select <t ro cache"},
		{`SELECT ifnull(a, 1), total(b) FROM t`, "select <t aggregate !ifnull !total"},
		{`SELECT count(*), (VALUES (1)) FROM t WHERE a IN (1, 2) AND (b, c) IN ((1, 2)) AND EXISTS (SELECT 1)`, "select <t aggregate ro cache"},
		{`SELECT last_insert_rowid()`, "select volatile unstable"},
	})
	st := Parse(`SELECT Lower(a), pg_catalog.upper(b), s.F(c), lower(d), f(1)`)
	if want := []string{"lower", "upper", "s.f", "f"}; !slices.Equal(st.Functions, want) {
		t.Errorf("Functions = %v, want %v", st.Functions, want)
	}
}

// A word of the grammar that Postgres lets a function have as its name must not
// hide that function.
func TestKeywordsCalledAreFunctions(t *testing.T) {
	t.Parallel()
	checkDescribed(t, []described{
		{`SELECT insert(1), update(2), delete(3), merge(4), explain(5)`, "select !insert !update !delete !merge !explain"},
		{`SELECT set(1), by(2), index(3), key(4), operator(5), cube(6), conflict(7)`, "select !set !by !index !key !operator !cube !conflict"},
		{`SELECT is(1), join(2), ilike(3), tablesample(4), over(5), filter(6)`, "select !is !join !ilike !tablesample !over !filter"},
		{`SELECT * FROM insert(1), filter(2)`, "select !insert !filter"},
		{`SELECT * FROM t WHERE a = 1 AND key(b) OR NOT index(c)`, "select <t !key !index"},
		{`SELECT * FROM t WHERE a IN (1) AND b NOT IN (2) AND c LIKE (d) AND c NOT ILIKE (d) AND e IS NOT NULL`, "select <t ro cache"},
		{`SELECT * FROM t JOIN u ON conflict(t.id) JOIN (v JOIN w ON true) ON true`, "select <t <u <v <w !conflict"},
		{`SELECT a AT TIME ZONE ('UTC'), sum(a) FILTER (WHERE b) OVER (PARTITION BY (c) ORDER BY (d)) FROM t ORDER BY (a)`, "select <t aggregate ro cache"},
		{`SELECT * FROM t GROUP BY a, cube(b)`, "select <t aggregate ro cache"},
		{`SELECT * FROM t GROUP BY a, f(cube(b))`, "select <t aggregate !f !cube"},
		{`SELECT * FROM t GROUP BY a ORDER BY cube(b)`, "select <t aggregate !cube"},
	})
}

func TestSessionsAndCatalogues(t *testing.T) {
	t.Parallel()
	checkDescribed(t, []described{
		{`SELECT * FROM pg_class`, "select <pg_class system ro"},
		{`SELECT * FROM information_schema.tables, t`, "select <information_schema.tables <t system ro"},
		{`SELECT * FROM pg_catalog.pg_stat_activity`, "select <pg_catalog.pg_stat_activity system ro"},
		{`SELECT * FROM pg_temp.t`, "select <pg_temp.t session system"},
		{`SELECT * FROM pg_temp_3.t`, "select <pg_temp_3.t session system"},
		{`SELECT * FROM pg_cursors`, "select <pg_cursors session system"},
		{`SELECT * FROM sqlite_master`, "select <sqlite_master system ro"},
		{`SET search_path TO a, b`, "set session"},
		{`SET LOCAL x = nextval('s')`, "set volatile unstable session"},
		{`RESET ALL`, "set session"},
		{`LISTEN c`, "listen session"},
		{`NOTIFY c`, "notify volatile"},
		{`PREPARE p AS DELETE FROM t`, "prepare >t session maywrite"},
		{`DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE`, "cursor <t locking session"},
		{`FETCH NEXT FROM c`, "cursor session"},
		{`SHOW all`, "show"},
		{`BEGIN`, "begin"},
	})
}

func TestReadOnlyIfAsksAboutEachUnknownFunction(t *testing.T) {
	t.Parallel()
	st := Parse(`SELECT f(1), s.g(2), ifnull(a, 1) FROM t`)
	var asked []string
	if !st.ReadOnlyIf(func(name string) bool { asked = append(asked, name); return true }) {
		t.Error("not read-only although every function is safe")
	}
	if want := []string{"f", "s.g", "ifnull"}; !slices.Equal(asked, want) {
		t.Errorf("asked about %v, want %v", asked, want)
	}
	if st.ReadOnlyIf(func(name string) bool { return name != "s.g" }) {
		t.Error("read-only although s.g is not safe")
	}
	if !st.CacheableIf(func(string) bool { return true }) || st.CacheableIf(nil) || st.Cacheable() {
		t.Error("CacheableIf does not follow its argument")
	}
	for _, text := range []string{"SELECT f(1) FROM t FOR UPDATE", "SELECT f(1); SELECT 1", "DELETE FROM t", "SELECT f(nextval('s'))", "FOO"} {
		if Parse(text).ReadOnlyIf(func(string) bool { return true }) {
			t.Errorf("%s is read-only if its functions are safe", text)
		}
	}
}

func TestAggregates(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"SELECT count(*) FROM t":                                         true,
		"SELECT coalesce(sum(a), 0) FROM t WHERE id = 1":                 true,
		"SELECT 1 + (max(a)) FROM t":                                     true,
		"SELECT 1 FROM t HAVING true":                                    true,
		"SELECT a FROM t GROUP BY a":                                     true,
		"SELECT 1 FROM t ORDER BY count(*)":                              true,
		"SELECT count(*) FILTER (WHERE a) FROM t":                        true,
		"SELECT my_percent(1) WITHIN GROUP (ORDER BY a) FROM t":          true,
		"SELECT pg_catalog.count(*), \"sum\"(a) FROM t":                  true,
		"WITH x AS (SELECT 1) SELECT count(*) FROM x":                    true,
		"SELECT count(*) OVER () FROM t":                                 false,
		"SELECT a FROM (SELECT count(*) AS a FROM t GROUP BY b) x":       false,
		"SELECT a FROM t WHERE b = (SELECT max(b) FROM t)":               false,
		"WITH x AS (SELECT count(*) FROM t HAVING true) SELECT * FROM x": false,
		"SELECT \"count\" FROM t":                                        false,
		"SELECT min FROM t":                                              false,
	} {
		if got := Parse(text).Aggregate; got != want {
			t.Errorf("%s: Aggregate = %v", text, got)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"SELECT * FROM t LIMIT 1":                           true,
		"SELECT * FROM t LIMIT ALL":                         true,
		"SELECT * FROM t OFFSET 1 FETCH NEXT ROW ONLY":      true,
		"SELECT * FROM t UNION SELECT * FROM u LIMIT 1":     true,
		"VALUES (1), (2) LIMIT 1":                           true,
		"SELECT * FROM (SELECT * FROM t LIMIT 1) x":         false,
		"SELECT * FROM t OFFSET 1":                          false,
		"WITH x AS (SELECT 1 LIMIT 1) SELECT * FROM x":      false,
		"SELECT 1 LIMIT 1; SELECT 2":                        false,
		"SELECT \"limit\" FROM t":                           false,
		"(SELECT * FROM t LIMIT 1) UNION (SELECT * FROM u)": false,
	} {
		if got := Parse(text).Limit; got != want {
			t.Errorf("%s: Limit = %v", text, got)
		}
	}
}
