package nplusone

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/gorminfra/infra/internal/scope"
)

func TestMessageOfTheLogIsASentence(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]Finding{
		`nplusone: 7 queries in a loop: db.Preload("Customer") on the query that loads Order`: {
			Kind: NPlusOne, Count: 7, Fixes: []Fix{{Code: `db.Preload("Customer")`, Note: "on the query that loads Order", Relation: "Customer"}},
		},
		`nplusone: 7 queries in a loop: db.Where("id IN ?", keys).Find(&orders), one query for all keys, before the loop`: {
			Kind: NPlusOne, Count: 7, Fixes: []Fix{{Code: `db.Where("id IN ?", keys).Find(&orders)`, Note: "one query for all keys, before the loop"}},
		},
		`nplusone: the same query 6 times: ask once, before the loop, and keep the answer`: {
			Kind: DuplicateQuery, Count: 6, Fixes: []Fix{{Note: "ask once, before the loop, and keep the answer"}},
		},
		`nplusone: 5 statements, one row at a time: db.CreateInBatches(&orders, 100), collect the rows and insert them after the loop`: {
			Kind: BatchThis, Count: 5, Fixes: []Fix{{Code: "db.CreateInBatches(&orders, 100)", Note: "collect the rows and insert them after the loop"}},
		},
	} {
		var log bytes.Buffer
		d := New(Config{Name: "shop", Development: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		d.tell(Report{Findings: []Finding{f}})
		line := log.String()
		if !strings.Contains(line, fmt.Sprintf("msg=%q db=shop route=", want)) || !strings.Contains(line, " kind="+string(f.Kind)+" count=") {
			t.Errorf("%s\nhas not the message %q, the database and the attributes", line, want)
		}
	}
}

func TestDevelopmentPrintsUnlessALoggerWasChosen(t *testing.T) {
	t.Parallel()
	var own bytes.Buffer
	logger := slog.New(slog.DiscardHandler)
	for name, c := range map[string]struct {
		cfg  Config
		want any
	}{
		"production":                     {Config{}, nil},
		"production with a logger":       {Config{Logger: logger}, nil},
		"development":                    {Config{Development: true}, os.Stderr},
		"development with a logger":      {Config{Development: true, Logger: logger}, nil},
		"development with an output":     {Config{Development: true, Output: &own}, &own},
		"output and logger, development": {Config{Development: true, Output: &own, Logger: logger}, &own},
	} {
		if got := any(New(c.cfg).cfg.Output); got != c.want {
			t.Errorf("%s: the output is %T, want %T", name, got, c.want)
		}
	}
}

func TestReportIsPrintedAsItsText(t *testing.T) {
	t.Parallel()
	_, s, _ := scope.Begin(t.Context(), "GET /orders")
	r := New(Config{}).Report(s)
	if got := fmt.Sprintf("%v", r); got != r.Text() || !strings.HasPrefix(got, "GET /orders: 0 statements") {
		t.Errorf("printed %q", got)
	}
}
