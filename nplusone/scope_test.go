package nplusone_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/nplusone"
)

func loopOver(db *gorm.DB, n int) {
	for i := range n {
		byID(db, i+1)
	}
}

func TestParallelRequestsAreApart(t *testing.T) {
	t.Parallel()
	db, d := library(t, nplusone.Config{Development: true})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			ctx, s := nplusone.Begin(context.Background(), fmt.Sprint("request ", n))
			loopOver(db.WithContext(ctx), n)
			r := s.End()
			if r.Statements != n || (len(r.Findings) == 1) != (n >= 5) {
				t.Errorf("request of %d statements: report %d, findings %q", n, r.Statements, kindsOf(r))
			}
			for _, f := range r.Findings {
				if f.Route != fmt.Sprint("request ", n) || f.Count != n {
					t.Errorf("request %d: finding of %q with %d statements", n, f.Route, f.Count)
				}
			}
		})
	}
	wg.Wait()
	want := nplusone.Stats{Scopes: 7, Statements: 28}
	got := d.Stats()
	if got.Scopes != want.Scopes || got.Statements != want.Statements || got.Findings[nplusone.NPlusOne] != 3 {
		t.Errorf("stats %+v", got)
	}
}

func TestWithoutScopeNothingIsCollected(t *testing.T) {
	t.Parallel()
	db, d := library(t, nplusone.Config{Development: true})
	loopOver(db, 20)
	if st := d.Stats(); st.Scopes != 0 || st.Statements != 0 {
		t.Errorf("stats %+v", st)
	}
	// Nor after the scope's end, in a goroutine that outlives its request.
	ctx, s := nplusone.Begin(t.Context(), "ended")
	s.End()
	loopOver(db.WithContext(ctx), 20)
	if r := s.End(); r.Statements != 0 {
		t.Errorf("%d statements after the end", r.Statements)
	}
}

func TestIgnoreKeepsStatementsOutOfFindings(t *testing.T) {
	t.Parallel()
	db, d := library(t, nplusone.Config{Development: true})
	for _, reason := range []string{"three rows, always", ""} {
		ctx, s := nplusone.Begin(t.Context(), "ignore")
		loopOver(db.WithContext(nplusone.Ignore(ctx, reason)), 6)
		loopOver(db.WithContext(ctx), 2)
		r := s.End()
		if len(r.Findings) != 0 || r.Statements != 8 || len(r.Ignored) != 1 || r.Ignored[0] != (nplusone.Ignored{Reason: reason, Statements: 6}) {
			t.Errorf("reason %q: %+v", reason, r)
		}
		if !strings.Contains(r.Text(), "6 statements ignored") || !strings.Contains(r.Text(), reason) {
			t.Errorf("the text hides what is ignored:\n%s", r.Text())
		}
	}
	if st := d.Stats(); st.Ignored != 12 {
		t.Errorf("stats %+v", st)
	}
}

func TestIgnoredWriteExplainsAReadAgain(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	ctx, s := nplusone.Begin(t.Context(), "ignored write")
	for range 6 {
		byID(db.WithContext(ctx), 1)
		db.WithContext(nplusone.Ignore(ctx, "")).Exec("UPDATE authors SET name = name WHERE id = 1")
	}
	if got := kindsOf(s.End()); len(got) != 0 {
		t.Errorf("findings %q", got)
	}
}

func TestWithoutDevelopmentNeitherPlacesNorParameters(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{})
	ctx, s := nplusone.Begin(t.Context(), "production")
	for _, p := range find[Post](db.WithContext(ctx)) {
		db.WithContext(ctx).Where("id = ?", p.AuthorID).Find(&p.Author)
	}
	r := s.End()
	if len(r.Findings) != 1 {
		t.Fatalf("findings %q", kindsOf(r))
	}
	f := r.Findings[0]
	if f.Query != nil || f.Loop != nil || f.Callers != nil || f.Samples != nil || r.CallSites {
		t.Errorf("%+v", f)
	}
	if f.Fixes[0].Code != `db.Preload("Author")` || f.Fixes[0].Confidence != nplusone.Likely {
		t.Errorf("fix %+v", f.Fixes[0])
	}
}

func TestPreloadOfOneRowIsNotMistakenForTheLoop(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{}) // without call sites both have one shape
	for n, want := range map[int]int{4: 0, 5: 1} {
		ctx, s := nplusone.Begin(t.Context(), "preload")
		tx := db.WithContext(ctx)
		find[Post](tx.Preload("Author").Limit(1))
		for _, p := range find[Post](tx)[:n] {
			_ = tx.Model(&p).Association("Author").Find(&p.Author)
		}
		if r := s.End(); len(r.Findings) != want {
			t.Errorf("%d in the loop: findings %q", n, kindsOf(r))
		}
	}
}

func TestFinishTellsOnceEndJoinsAndReports(t *testing.T) {
	t.Parallel()
	var told []nplusone.Finding
	var log bytes.Buffer
	db, d := library(t, nplusone.Config{OnFinding: func(f nplusone.Finding) { told = append(told, f) }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, s, _ := scope.Begin(t.Context(), "GET")
	_, inner := nplusone.Begin(ctx, "inner")
	loopOver(db.WithContext(ctx), 6)
	if n := d.Count(s); n != 1 {
		t.Errorf("%d findings counted before the end", n)
	}
	if n := d.Statements(s); n != 6 {
		t.Errorf("%d statements counted before the end", n)
	}
	if r := inner.End(); len(r.Findings) != 1 || len(told) != 0 || s.Ended() {
		t.Errorf("a joined scope's End: %d findings, %d told, ended=%v", len(r.Findings), len(told), s.Ended())
	}
	s.SetName("GET /authors")
	s.End()
	for range 2 {
		if r := d.Finish(s); r.Route != "GET /authors" || len(r.Findings) != 1 {
			t.Errorf("report %+v", r)
		}
	}
	if len(told) != 1 || told[0].Route != "GET /authors" {
		t.Errorf("told %+v", told)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), `route="GET /authors"`) || !strings.Contains(log.String(), " db=default ") {
		t.Errorf("log:\n%s", log.String())
	}
	// The same finding of the next request is not logged again so soon.
	ctx, again := nplusone.Begin(t.Context(), "GET /authors")
	loopOver(db.WithContext(ctx), 6)
	again.End()
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || len(told) != 2 {
		t.Errorf("%d entries in the log, %d told", n, len(told))
	}
}

func TestPanicOfOnFindingReachesTheFinisher(t *testing.T) {
	t.Parallel()
	raise := errors.New("n+1")
	db, _ := library(t, nplusone.Config{OnFinding: func(nplusone.Finding) { panic(raise) }})
	ctx, s := nplusone.Begin(t.Context(), "raise")
	loopOver(db.WithContext(ctx), 6)
	defer func() {
		if p := recover(); p != raise {
			t.Errorf("recovered %v", p)
		}
	}()
	s.End()
}

func TestOneScopeOverTwoDatabases(t *testing.T) {
	t.Parallel()
	a, _ := library(t, nplusone.Config{Development: true})
	b, d := library(t, nplusone.Config{})
	ctx, s := nplusone.Begin(t.Context(), "two")
	loopOver(a.WithContext(ctx), 6)
	loopOver(b.WithContext(ctx), 7)
	r := s.End()
	if r.Statements != 13 || len(r.Findings) != 2 {
		t.Errorf("%d statements, findings %q", r.Statements, kindsOf(r))
	}
	if share := r.Findings[0].Share + r.Findings[1].Share; share < 0.999 || share > 1.001 {
		t.Errorf("shares sum up to %v", share)
	}
	if d.Stats().Statements != 7 {
		t.Errorf("stats %+v", d.Stats())
	}
}

func TestPluginIsUsedOnceAndClosed(t *testing.T) {
	t.Parallel()
	db, d := library(t, nplusone.Config{})
	other, _ := library(t, nplusone.Config{})
	if err := other.Use(rename{d}); err == nil || !strings.Contains(err.Error(), "already used") {
		t.Errorf("a second Use: %v", err)
	}
	ctx, s := nplusone.Begin(t.Context(), "closed")
	loopOver(db.WithContext(ctx), 6)
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	loopOver(db.WithContext(ctx), 6)
	if r := s.End(); r.Statements != 6 || len(r.Findings) != 1 {
		t.Errorf("%d statements, findings %q", r.Statements, kindsOf(r))
	}
	if err := other.Use(rename{d}); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Use after Close: %v", err)
	}
	for _, bad := range []int{-1, 1} {
		err := nplusone.New(nplusone.Config{Threshold: bad}).Initialize(db)
		if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("nplusone: Threshold is %d: ", bad)) {
			t.Errorf("Threshold %d: %v", bad, err)
		}
	}
}

// rename lets GORM take the plugin a second time.
type rename struct{ *nplusone.Detector }

func (rename) Name() string { return "again" }

func TestDisabledCollectsNothing(t *testing.T) {
	t.Parallel()
	db, d := library(t, nplusone.Config{Disabled: true})
	ctx, s := nplusone.Begin(t.Context(), "disabled")
	loopOver(db.WithContext(ctx), 6)
	if r := s.End(); r.Statements != 0 || d.Stats().Scopes != 0 {
		t.Errorf("%+v", r)
	}
	if r := d.Report(nil); r.Statements != 0 || d.Count(nil) != 0 || d.Statements(nil) != 0 {
		t.Errorf("of no scope: %+v", r)
	}
}

func TestJSONAndOutput(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	db, _ := library(t, nplusone.Config{Development: true, Output: &out})
	ctx, s := nplusone.Begin(t.Context(), "GET /posts")
	for _, p := range find[Post](db.WithContext(ctx)) {
		db.WithContext(ctx).First(&p.Author, p.AuthorID)
	}
	r := s.End()
	if out.String() != r.Text() || !strings.Contains(r.Text(), `fix      db.Preload("Author")  on the query that loads Post, relation_test.go:`) {
		t.Errorf("output:\n%s\ntext:\n%s", out.String(), r.Text())
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back nplusone.Report
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if back.Text() != r.Text() {
		t.Errorf("the report does not survive JSON:\n%s", raw)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "finding", r.Findings[0])
	if !strings.Contains(log.String(), `"fix":"db.Preload(\"Author\")"`) {
		t.Errorf("log: %s", log.String())
	}
}

func TestNumbersReachTheMeter(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{})
	ctx, s := nplusone.Begin(t.Context(), "meter")
	loopOver(db.WithContext(ctx), 6)
	loopOver(db.WithContext(nplusone.Ignore(ctx, "")), 2)
	s.End()
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	hub.Meter(func(m *hook.Metric, v float64, labels ...string) { got[m.Name+strings.Join(labels, ",")] = v })
	want := map[string]float64{
		"nplusone_findings_totaln_plus_one": 1, "nplusone_findings_totalduplicate_query": 0, "nplusone_findings_totalbatch_this": 0,
		"nplusone_scopes_total": 1, "nplusone_ignored_total": 2, "nplusone_dropped_total": 0,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// marking answers every read as if it came from elsewhere than the database.
type marking struct{ outcome hook.Outcome }

func (marking) Serves(*hook.Record) bool { return true }

func (m marking) Serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	rows, err := r.Next(ctx)
	r.Outcome = m.outcome
	return rows, err
}

func TestAnswersFromMemoryAreNoFinding(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[hook.Outcome]int{hook.L1: 0, hook.Shared: 0, hook.L2: 1} {
		db, _ := library(t, nplusone.Config{Development: true})
		hub, err := hook.Attach(db)
		if err != nil {
			t.Fatal(err)
		}
		remove, err := hub.Register(marking{outcome})
		if err != nil {
			t.Fatal(err)
		}
		ctx, s := nplusone.Begin(t.Context(), outcome.String())
		for _, p := range find[Post](db.WithContext(ctx)) { // a parent is known, wherever it came from
			db.WithContext(ctx).First(&p.Author, p.AuthorID)
		}
		r := s.End()
		remove()
		if len(r.Findings) != want || r.Statements != 1+rowCount {
			t.Errorf("%v: %d statements, findings %q", outcome, r.Statements, kindsOf(r))
		}
		if want == 1 && r.Findings[0].Fixes[0].Code != `db.Preload("Author")` {
			t.Errorf("%v: %q", outcome, kindsOf(r))
		}
	}
}

func TestElapsedTimeIsOfTheStatements(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	ctx, s := nplusone.Begin(t.Context(), "time")
	for range 5 {
		db.WithContext(ctx).Exec("SELECT pg_sleep(0.01)")
	}
	if r := s.End(); r.Time < 50*time.Millisecond || r.Time > 10*time.Second {
		t.Errorf("time %v", r.Time)
	}
}
