package hook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// scenario is one thing that a user of GORM does. It runs once for each variant,
// each time in a schema of its own, and what it notes is compared.
type scenario struct {
	name string
	run  func(e *env)
	// config changes GORM's configuration.
	config func(c *gorm.Config)
	// dialect changes the dialector's.
	dialect func(c *postgres.Config)
	// plugins are other plugins on the same DB, used before or after the variant.
	before, after func() []gorm.Plugin
	// ownTables: the scenario changes the schema, so it gets one of its own.
	ownTables bool
}

// behaviours are run by TestBehaviours under their number.
var behaviours = map[string][]scenario{}

func TestBehaviours(t *testing.T) {
	t.Parallel()
	cluster := testbed.SharedCluster(t)
	for i := 1; i <= 15; i++ {
		number := fmt.Sprintf("G%02d", i)
		t.Run(number, func(t *testing.T) {
			t.Parallel()
			if len(behaviours[number]) == 0 {
				t.Fatalf("no scenario shows %s", number)
			}
			database := cluster.NewDatabase(t)
			places := map[string]*place{}
			for _, v := range variants() {
				places[v.name] = newPlace(t, cluster, database, "s_"+v.name)
			}
			for j, s := range behaviours[number] {
				t.Run(s.name, func(t *testing.T) {
					runScenario(t, s, func(t *testing.T, v variant) *place {
						if s.ownTables {
							return newPlace(t, cluster, database, fmt.Sprintf("own%d_%s", j, v.name))
						}
						places[v.name].empty(t)
						return places[v.name]
					})
				})
			}
		})
	}
}

func runScenario(t *testing.T, s scenario, placeFor func(*testing.T, variant) *place) {
	var first *env
	for _, v := range variants() {
		var e *env
		ok := t.Run(v.name, func(t *testing.T) {
			e = newEnv(t, placeFor(t, v), s, v)
			s.run(e)
			e.checkRecords()
		})
		if !ok || e == nil {
			return
		}
		switch {
		case e.left:
		case first == nil:
			first = e
		default:
			compareTranscripts(t, first, e)
		}
	}
}

func compareTranscripts(t *testing.T, want, got *env) {
	t.Helper()
	for i := range max(len(want.lines), len(got.lines)) {
		w, g := "(nothing)", "(nothing)"
		if i < len(want.lines) {
			w = want.lines[i]
		}
		if i < len(got.lines) {
			g = got.lines[i]
		}
		if w != g {
			t.Fatalf("line %d differs\n%s: %s\n%s: %s\nbefore it:\n%s", i, want.variant, w, got.variant, g,
				strings.Join(want.lines[max(0, i-6):i], "\n"))
		}
	}
}

// env is what a scenario runs in.
type env struct {
	*place
	t             *testing.T
	variant       string
	db            *gorm.DB
	part          *part     // nil for bare GORM and for the whole plugin
	hub           *hook.Hub // nil for bare GORM
	left          bool      // this variant is not compared
	behindItsBack func()    // called after SQL that the variant cannot have seen
	removePart    func()    // takes the part out

	mu    sync.Mutex // guards lines
	lines []string
}

// now is the time of everything that GORM writes.
var now = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

func newEnv(t *testing.T, p *place, s scenario, v variant) *env {
	t.Helper()
	e := &env{place: p, t: t, variant: v.name}
	e.db = e.open(s)
	use := func(plugins func() []gorm.Plugin) {
		if plugins == nil {
			return
		}
		for _, other := range plugins() {
			e.must(e.db.Use(other))
		}
	}
	use(s.before)
	if v.use != nil {
		v.use(t, e)
	}
	use(s.after)
	return e
}

// open opens GORM on the primary.
func (e *env) open(s scenario) *gorm.DB {
	e.t.Helper()
	c := &gorm.Config{Logger: recorder{e}, NowFunc: func() time.Time { return now }, TranslateError: false}
	if s.config != nil {
		s.config(c)
	}
	d := postgres.Config{DSN: e.dsn(e.cluster.Primary())}
	if s.dialect != nil {
		s.dialect(&d)
	}
	db, err := gorm.Open(postgres.New(d), c)
	if err != nil {
		e.t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = pool.Close() })
	return db
}

// exec runs SQL on the primary without GORM and lets the replicas catch up:
// nothing tells the plugin of it. (The part waits for them itself.)
func (e *env) exec(text string) {
	e.t.Helper()
	e.script(e.t, text)
	if e.behindItsBack != nil {
		e.behindItsBack()
	}
}

// note adds a line to the transcript.
func (e *env) note(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), e.schema, "SCHEMA")
	line = savepointName.ReplaceAllString(line, "spN")
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, line)
}

var savepointName = regexp.MustCompile(`sp\d{6,}`)

// did notes what a finisher returned and what it filled.
func (e *env) did(what string, tx *gorm.DB, dests ...any) *gorm.DB {
	e.note("%s: error %s, rows affected %d, %s", what, errorText(tx.Error), tx.RowsAffected, values(dests))
	return tx
}

// got notes an error and values.
func (e *env) got(what string, err error, vals ...any) {
	e.note("%s: error %s, %s", what, errorText(err), values(vals))
}

// must ends the scenario on an error that its set-up cannot have.
func (e *env) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// leave takes this variant out of the comparison: bare GORM does worse here, it
// fails or panics as the scenario says, or the variant has nothing to show.
func (e *env) leave() { e.left = true }

// is notes a condition that has to hold in each variant.
func (e *env) is(what string, ok bool) {
	e.t.Helper()
	if !ok {
		e.t.Errorf("not true: %s", what)
	}
}

// hooked reports whether the variant's own numbers can be checked.
func (e *env) hooked() bool { return e.part != nil }

// count returns a number that the primary gives without GORM.
func (e *env) count(query string, args ...any) (n int) {
	e.t.Helper()
	if err := e.raw.QueryRowContext(e.t.Context(), query, args...).Scan(&n); err != nil {
		e.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// checkRecords holds what is true after every scenario.
func (e *env) checkRecords() {
	if !e.hooked() {
		return
	}
	records, _ := e.part.seen()
	for _, r := range records {
		switch {
		case r.Outcome == hook.Database && r.Where == hook.Pooled && r.Node == nil && r.Err == nil:
			e.t.Errorf("no node for %s", r.SQL)
		case r.Access != hook.ReadOnly && r.Node != nil && r.Node != e.hub.Primary() && r.Where == hook.Pooled:
			e.t.Errorf("%s went to %s", r.SQL, r.Node.Name)
		case r.Duration <= 0:
			e.t.Errorf("%s took %v", r.SQL, r.Duration)
		}
	}
}

func errorText(err error) string {
	switch {
	case err == nil:
		return "none"
	case errors.Is(err, context.Canceled):
		return "canceled" // drivers wrap it as the moment decides
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	}
	return err.Error()
}

func values(vals []any) string {
	var b strings.Builder
	for _, v := range vals {
		text, err := json.Marshal(v)
		if err != nil {
			text = fmt.Appendf(nil, "%+v", v)
		}
		fmt.Fprintf(&b, "%s ", text)
	}
	return b.String()
}

// recorder is a GORM logger that notes each statement.
type recorder struct{ e *env }

func (r recorder) LogMode(logger.LogLevel) logger.Interface { return r }

func (recorder) Info(context.Context, string, ...any)  {}
func (recorder) Warn(context.Context, string, ...any)  {}
func (recorder) Error(context.Context, string, ...any) {}

func (r recorder) Trace(_ context.Context, _ time.Time, fc func() (string, int64), err error) {
	text, rows := fc()
	r.e.note("SQL %s [%d rows, error %s]", text, rows, errorText(err))
}
