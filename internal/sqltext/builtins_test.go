package sqltext

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorminfra/infra/internal/testbed"
)

// newerThan15 are functions and grammar that Postgres has got since.
var newerThan15 = strings.Fields(`json_table json_value json_query json_exists json_array json_arrayagg json_objectagg json_scalar json_serialize
	merge_action random_normal uuidv4 uuidv7 array_sample array_shuffle pg_get_wal_resource_managers`)

// ofExtensions are functions of extensions whose names are trusted.
var ofExtensions = strings.Fields(`uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 gen_random_bytes gen_salt pgp_sym_encrypt pgp_pub_encrypt pg_stat_statements`)

// What is known of functions is what the running server's catalogue says, or is
// listed with its reason: settingsOnly, readAnywhere, primaryOnly.
func TestKnownFunctionsAreThoseOfTheCatalogue(t *testing.T) {
	t.Parallel()
	conn, err := testbed.SharedCluster(t).Primary().Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var version int
	if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&version); err != nil {
		t.Fatal(err)
	}

	// The worst volatility of each name, and whether one of its functions aggregates.
	type entry struct {
		Name       string
		Volatility string
		Aggregate  bool
	}
	rows, err := conn.Query(t.Context(), `SELECT proname AS name, max(translate(provolatile::text, 'isv', '123')) AS volatility, bool_or(prokind = 'a' AND aggkind <> 'h') AS aggregate
		FROM pg_proc LEFT JOIN pg_aggregate ON aggfnoid = pg_proc.oid WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[entry])
	if err != nil {
		t.Fatal(err)
	}
	catalogue := make(map[string]entry, len(list))
	for _, e := range list {
		catalogue[e.Name] = e
	}
	grammar := map[string]bool{}
	rows, err = conn.Query(t.Context(), `SELECT word FROM pg_get_keywords() WHERE catcode IN ('C', 'R')`)
	if err != nil {
		t.Fatal(err)
	}
	words, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		grammar[w] = true
	}

	settings, anywhere, only := set(settingsOnly), set(readAnywhere), set(primaryOnly)
	for name, f := range functions() {
		e, ok := catalogue[name]
		switch {
		case f.class == primary || f.foreign:
		case !ok:
			if !grammar[name] && !slices.Contains(newerThan15, name) && !slices.Contains(ofExtensions, name) && !strings.HasPrefix(name, "st_") && (version == 15 || !builtin15(name)) {
				t.Errorf("%s is trusted, and anybody may define it", name)
			}
		case e.Volatility == "3" && !anywhere[name]:
			t.Errorf("%s is volatile, and judged to run anywhere", name)
		case e.Volatility == "2" && f.class == pure && !settings[name]:
			t.Errorf("%s is stable, and judged pure", name)
		}
		if ok && version == 15 && f.aggregate != e.Aggregate {
			t.Errorf("%s: aggregate %v, the catalogue says %v", name, f.aggregate, e.Aggregate)
		}
	}
	if version == 15 {
		for name, e := range catalogue {
			// What was made stricter by hand must be a name that the catalogue has.
			if builtin15(name) || strings.IndexFunc(name, func(r rune) bool { return r >= 0x80 }) >= 0 {
				continue
			}
			t.Errorf("%s (%s) is missing in builtins.go", name, e.Volatility)
		}
	}
	for name := range settings {
		if e := catalogue[name]; version == 15 && e.Volatility != "2" {
			t.Errorf("%s is listed among the stable ones of settingsOnly, and is not stable: %q", name, e.Volatility)
		}
	}
	for name := range only {
		if e := catalogue[name]; e.Volatility == "3" {
			t.Errorf("%s is volatile and needs no place in primaryOnly", name)
		}
	}
}

func set(names string) map[string]bool {
	m := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		m[name] = true
	}
	return m
}

var builtins15 = func() map[string]bool {
	m := set(immutableBuiltins)
	maps.Copy(m, set(stableBuiltins))
	maps.Copy(m, set(volatileBuiltins))
	return m
}()

func builtin15(name string) bool { return builtins15[name] }

// Each built-in that is judged to run anywhere, and can be called with NULLs or
// without arguments, is called on a replica, which must not refuse it.
func TestFunctionsJudgedReadOnlyRunOnStandby(t *testing.T) {
	t.Parallel()
	conn, err := testbed.SharedCluster(t).Replica(0).Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `SELECT format('SELECT %s%I(%s)', CASE WHEN proretset OR prorettype = 'record'::regtype THEN '* FROM ' ELSE '' END, proname,
			(SELECT string_agg(CASE WHEN t.typcategory = 'P' THEN NULL WHEN t.typname = 'pg_lsn' THEN '''0/1''::pg_lsn' WHEN t.typcategory = 'N' AND t.typname <> 'money' THEN '1::' || t.typname
				WHEN t.typcategory = 'S' THEN '''1''::' || quote_ident(t.typname) WHEN t.typcategory = 'B' THEN 'true' ELSE 'NULL::' || quote_ident(t.typname) END, ', ' ORDER BY o)
			 FROM unnest(proargtypes) WITH ORDINALITY a(oid, o) JOIN pg_type t USING (oid)))
		FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY($1) AND prokind = 'f' AND prorettype <> 'trigger'::regtype AND prorettype <> 'event_trigger'::regtype
		AND NOT 'internal'::regtype = ANY (proargtypes) AND NOT 'cstring'::regtype = ANY (proargtypes) AND NOT EXISTS (SELECT 1 FROM unnest(proargtypes) a(oid) JOIN pg_type t USING (oid) WHERE t.typtype = 'p' OR t.typcategory = 'Z')
		AND proname !~ '_out$|_send$|out$|send$|^pg_sleep|^generate_series|^repeat|^lpad|^rpad'`, readOnlyNames())
	if err != nil {
		t.Fatal(err)
	}
	calls, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(calls) < 1000 {
		t.Errorf("only %d functions were called", len(calls))
	}
	for _, call := range calls {
		if st := Parse(call); !st.ReadOnly() {
			t.Errorf("%s\n is %s", call, describe(st))
		}
		if err := simple(t.Context(), conn, call); isStandby(err) && !strings.Contains(err.Error(), "not in progress") {
			t.Errorf("%s\n the replica answers %v", call, err)
		}
		if conn.IsClosed() {
			t.Fatal(call, " closed the connection")
		}
	}
}

func readOnlyNames() []string {
	var names []string
	for name, f := range functions() {
		if f.class != primary && !f.foreign {
			names = append(names, name)
		}
	}
	return names
}

// No word of the grammar that Postgres lets a function have as its name hides one.
func TestKeywordsThatMayNameFunctionsAreNoticed(t *testing.T) {
	t.Parallel()
	conn, err := testbed.SharedCluster(t).Primary().Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `SELECT word FROM pg_get_keywords() WHERE catcode IN ('U', 'T')`)
	if err != nil {
		t.Fatal(err)
	}
	words, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range keywordList {
		words = append(words, strings.ToLower(e.name))
	}
	calls := 0
	for _, word := range words {
		for _, form := range []string{
			"SELECT %s(1)", "SELECT -%s(1), 1 + %s(1)", "SELECT * FROM %s(1)", "SELECT ALL %s(1)", "SELECT DISTINCT %s(1)", "SELECT abs(%s(1)), (%s(1)), ARRAY[%s(1)]", "SELECT (SELECT %s(1))",
			"SELECT 1 FROM (SELECT 1 AS a) t WHERE a = 1 AND %s(1) > 1 OR NOT %s(1)", "SELECT 1 FROM (SELECT 1) t JOIN (SELECT 2) u ON %s(1)",
			"SELECT 1 ORDER BY %s(1)", "SELECT 1 LIMIT %s(1)", "SELECT CASE WHEN %s(1) THEN %s(1) ELSE %s(1) END", "SELECT 1 GROUP BY 1 + %s(1) HAVING %s(1)", "VALUES (%s(1))",
			"SELECT 1 BETWEEN 0 AND %s(1), 1 IN (%s(1))", "SELECT sum(1) FILTER (WHERE %s(1)) OVER (PARTITION BY %s(1) ORDER BY %s(1))", "SELECT 'a' LIKE %s(1) ESCAPE %s(1)",
		} {
			// The server tells what it takes for a function: it does not find it.
			text := strings.ReplaceAll(form, "%s", word)
			var pg *pgconn.PgError
			if err := simple(t.Context(), conn, text); !errors.As(err, &pg) || pg.Code != "42883" || !strings.HasPrefix(pg.Message, "function "+word+"(") && !strings.HasPrefix(pg.Message, `function "`+word+`"(`) {
				continue
			}
			calls++
			if st := Parse(text); st.Operation != Unknown && !slices.Contains(st.Functions, word) {
				t.Errorf("%s\n is %s", text, describe(st))
			}
		}
	}
	if calls < 4000 {
		t.Errorf("only %d calls were seen", calls)
	}
}
