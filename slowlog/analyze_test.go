package slowlog

import (
	"slices"
	"strings"
	"testing"

	"gorm.io/gorm"
)

// analyzing makes a Log that waits for the second run however long a busy machine
// takes for it: with the timeout of twice the first one's time, plan and numbers
// would depend on the load.
func analyzing(tb testing.TB, db *gorm.DB) *Log {
	tb.Helper()
	l := use(tb, db, Config{Threshold: 1, Explain: Analyze})
	l.minTimeout = maxExplainTimeout
	return l
}

func TestAnalyzeFindsWhatOnlyTheRunShows(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t, "work_mem=64kB")
	// pack and twin agree always, which the statistics do not know.
	mustExec(t, db, `CREATE TABLE twins AS SELECT i AS id, i % 100 AS pack, i % 100 AS twin FROM generate_series(1, 20000) i`)
	mustExec(t, db, `CREATE INDEX ON twins (pack)`)
	mustExec(t, db, `ANALYZE twins`)
	cases := []struct {
		name, text string
		want       Kind
	}{
		{"estimate", `SELECT * FROM twins WHERE pack = 7 AND twin = 7`, WrongEstimate},
		{"filter", `SELECT * FROM wolves WHERE name = 'wolf 7' OFFSET 0`, RowsRemoved},
		{"scan", `SELECT name FROM wolves WHERE lower(name) = 'wolf 9'`, SequentialScan},
		{"spill", `SELECT name FROM wolves ORDER BY md5(name)`, Spill},
	}
	l := analyzing(t, db)
	for i, c := range cases {
		mustExec(t, db, c.text)
		until(t, "the plan of "+c.name, func() bool { return l.Stats().Explained == uint64(i+1) })
		p := l.Entries()[0].Plan
		if !p.Analyzed || !slices.Contains(kinds(p), c.want) || !strings.Contains(p.Text, "(actual rows=") {
			t.Errorf("%s: analyzed %v, findings %+v\n%s", c.name, p.Analyzed, p.Findings, p.Text)
		}
	}
}

// Where a function may hide, the statement is not run again.
func TestAnalyzeRunsOnlyWhatTheCatalogueShowsToRead(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	for _, text := range []string{
		`CREATE VIEW pack_of_views AS SELECT id, pg_advisory_lock(id)::text FROM wolves WHERE id = 1`,
		`CREATE VIEW harmless AS SELECT id FROM wolves`,
		`CREATE TABLE guarded (id int)`,
		`ALTER TABLE guarded ENABLE ROW LEVEL SECURITY`,
		`CREATE SCHEMA other`,
		`CREATE TABLE other.wolves (id int)`,
		// Named as a built-in, for a type of its own.
		`CREATE TYPE prey AS (n int)`,
		`CREATE TABLE meals (p prey)`,
		`CREATE FUNCTION lower(prey) RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_advisory_lock(5)'`,
		// Called as a column is: r.howl.
		`CREATE TABLE rivals (id int)`,
		`INSERT INTO rivals VALUES (1)`,
		`CREATE FUNCTION howl(rivals) RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_advisory_lock(6)'`,
	} {
		mustExec(t, db, text)
	}
	cases := []struct {
		text     string
		analyzed bool
	}{
		{`SELECT * FROM wolves WHERE id = 3`, true},
		{`SELECT * FROM "public"."wolves" w JOIN bites b ON b.id = w.id`, true},
		{`SELECT * FROM other.wolves`, true},
		{`WITH w AS (SELECT * FROM wolves) SELECT count(*) FROM w`, true},
		{`SELECT 1`, true},
		{`SELECT * FROM pack_of_views`, false},
		{`SELECT * FROM harmless`, false},
		{`SELECT * FROM wolves WHERE id IN (SELECT id FROM harmless)`, false},
		{`SELECT * FROM guarded`, false},
		{`SELECT lower(p) FROM meals`, false},
		{`SELECT lower(name) FROM wolves LIMIT 1`, false}, // the name is taken now
		{`SELECT r.howl FROM rivals r`, false},
	}
	l := analyzing(t, db)
	for i, c := range cases {
		if err := db.Exec(c.text).Error; err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		until(t, "the plan of "+c.text, func() bool {
			if s := l.Stats(); s.ExplainFailed+s.ExplainSkipped > 0 {
				t.Fatalf("%s: %+v", c.text, s)
			}
			return l.Stats().Explained == uint64(i+1)
		})
		if p := l.Entries()[0].Plan; p.Analyzed != c.analyzed {
			t.Errorf("%s: analyzed %v, want %v\n%s", c.text, p.Analyzed, c.analyzed, p.Text)
		}
	}
}

func TestAnalyzeIsOffForUserOperatorsAndCastsThatMayWrite(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	mustExec(t, db, `CREATE FUNCTION snap(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT true FROM pg_advisory_lock($1)'`)
	l := analyzing(t, db)
	mustExec(t, db, `SELECT * FROM bites`)
	until(t, "the first plan", func() bool { return l.Stats().Explained == 1 })
	if !l.Entries()[0].Plan.Analyzed {
		t.Fatal("not analyzed before the operator existed")
	}
	mustExec(t, db, `CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = snap)`)
	mustExec(t, db, `SELECT * FROM bites WHERE id === 1`)
	until(t, "the second plan", func() bool { return l.Stats().Explained == 2 })
	if l.Entries()[0].Plan.Analyzed {
		t.Fatal("a volatile operator was run again")
	}
}
