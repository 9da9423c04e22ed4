package nplusone_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/nplusone"
)

func TestLoopLineIsTheOneOfTheFunctionThatLoadedTheParents(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	ctx, s := nplusone.Begin(t.Context(), "lines")
	tx := db.WithContext(ctx)
	load := func() []Post { return find[Post](tx) }
	posts := load()
	for i := range posts {
		func() { byID(tx, int(posts[i].AuthorID)) }()
	}
	r := s.End()
	if len(r.Findings) != 1 {
		t.Fatalf("%d findings\n%s", len(r.Findings), r.Text())
	}
	f := r.Findings[0]
	if !strings.HasSuffix(f.Query.Function, ".byID") || strings.HasSuffix(f.Loop.Function, ".byID") {
		t.Errorf("query in %s, loop in %s: want byID for the query and this test for the loop", f.Query.Function, f.Loop.Function)
	}
	if !strings.Contains(r.Text(), "   query    loop_test.go:") {
		t.Errorf("the text does not name the query's own line:\n%s", r.Text())
	}
}

func TestLoopLineIsNotThatOfASharedHelper(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	ctx, s := nplusone.Begin(t.Context(), "helper")
	posts := find[Post](db.WithContext(ctx))
	for _, p := range posts {
		find[Comment](db.WithContext(ctx).Where("post_id = ?", p.ID))
	}
	f := s.End().Findings[0]
	if f.Fixes[0].Code != `db.Preload("Comments")` || !strings.Contains(f.Query.Function, ".find[") || !strings.Contains(f.Loop.Function, ".TestLoopLineIsNot") {
		t.Errorf("%s", f)
	}
}

func TestHookThatQueriesIsALoop(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	ctx, s := nplusone.Begin(t.Context(), "hook")
	var all []PostWithHook
	if err := db.WithContext(ctx).Find(&all).Error; err != nil {
		t.Fatal(err)
	}
	if got := kindsOf(s.End()); len(got) != 1 || !strings.HasPrefix(got[0], "n_plus_one 6/6") {
		t.Errorf("findings %q", got)
	}
}

// PostWithHook asks for its author by itself.
type PostWithHook struct {
	ID       uint
	AuthorID uint
	Name     string `gorm:"-"`
}

func (PostWithHook) TableName() string { return "posts" }

func (p *PostWithHook) AfterFind(tx *gorm.DB) error {
	return tx.Raw("SELECT name FROM authors WHERE id = ?", p.AuthorID).Scan(&p.Name).Error
}

func TestCancelledQueryIsCountedAndNoFinding(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	ctx, s := nplusone.Begin(t.Context(), "cancelled")
	for i := range 6 {
		dead, cancel := context.WithCancel(ctx)
		cancel()
		if err := db.WithContext(dead).Take(&Author{}, i).Error; !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v", err)
		}
	}
	if r := s.End(); r.Failed != 6 || len(r.Findings) != 0 {
		t.Errorf("%d failed, findings %q", r.Failed, kindsOf(r))
	}
}

func TestRowsClosedByTheirContextAreCounted(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	ctx, s := nplusone.Begin(t.Context(), "rows")
	id := 0
	for range 6 {
		id++ // while the rows of the last turn may still be closing
		query, cancel := context.WithCancel(ctx)
		rows, err := db.WithContext(query).Raw("SELECT generate_series(1, 100000) WHERE ? > 0", &id).Rows()
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		for rows.Next() { // until database/sql closes them
		}
		rows.Close()
	}
	waitFor(t, "the count of six statements", func() bool { return s.Report().Statements == 6 })
	s.End()
}

func TestGenericsAndPreparedStatements(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true}, func(c *gorm.Config) { c.PrepareStmt = true })
	ctx, s := nplusone.Begin(t.Context(), "generics")
	posts, err := gorm.G[Post](db).Find(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range posts {
		if _, err := gorm.G[Author](db).Where("id = ?", p.AuthorID).First(ctx); err != nil {
			t.Fatal(err)
		}
	}
	r := s.End()
	if got := kindsOf(r); len(got) != 1 || got[0] != `n_plus_one 6/6 db.Preload("Author")` {
		t.Fatalf("findings %q\n%s", got, r.Text())
	}
	if f := r.Findings[0]; !strings.HasSuffix(f.Query.File, "line_test.go") {
		t.Errorf("query at %v", f.Query)
	}

	ctx = nplusone.ForTest(t)
	if _, err := gorm.G[Post](db).Preload("Author", nil).Find(ctx); err != nil {
		t.Fatal(err)
	}
	nplusone.AssertNone(t, ctx)
}

func TestDirectCallsOfThePoolAreSeen(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	ctx, s := nplusone.Begin(t.Context(), "direct")
	for i := range 5 {
		var name sql.NullString
		_ = db.Statement.ConnPool.QueryRowContext(ctx, "SELECT name FROM authors WHERE id = $1", i).Scan(&name)
	}
	if got := kindsOf(s.End()); len(got) != 1 {
		t.Errorf("findings %q", got)
	}
}
