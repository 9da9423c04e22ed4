package nplusone_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/nplusone"
)

// recorder is a TB that keeps what a failing test would say.
type recorder struct {
	*testing.T
	said []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) text() string { return strings.Join(r.said, "\n") }

func expect(t *testing.T, r *recorder, parts ...string) {
	t.Helper()
	if len(parts) == 0 && len(r.said) > 0 {
		t.Errorf("failed although nothing is wrong:\n%s", r.text())
	}
	if len(parts) > 0 && len(r.said) != 1 {
		t.Errorf("said %d times", len(r.said))
	}
	for _, p := range parts {
		if !strings.Contains(r.text(), p) {
			t.Errorf("does not say %q:\n%s", p, r.text())
		}
	}
}

func TestAssertNone(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{}) // neither the threshold nor Development matter
	t.Run("clean", func(t *testing.T) {
		r := &recorder{T: t}
		ctx := nplusone.ForTest(r)
		find[Post](db.WithContext(ctx).Preload("Author").Preload("Comments"))
		nplusone.AssertNone(r, ctx)
		expect(t, r)
	})
	t.Run("two are enough", func(t *testing.T) {
		r := &recorder{T: t}
		ctx := nplusone.ForTest(r)
		for _, p := range find[Post](db.WithContext(ctx).Limit(2)) {
			db.WithContext(ctx).First(&p.Author, p.AuthorID)
		}
		nplusone.AssertNone(r, ctx)
		expect(t, r, "nplusone: 1 finding", `    1. n+1: asked 2 times`, `db.Preload("Author")`, "assert_test.go:", "relation_test.go:")
	})
	t.Run("no statement proves nothing", func(t *testing.T) {
		r := &recorder{T: t}
		ctx := nplusone.ForTest(r)
		find[Post](db) // the context was forgotten
		nplusone.AssertNone(r, ctx)
		expect(t, r, "saw no statement", "db.WithContext(ctx)")
	})
	t.Run("no scope", func(t *testing.T) {
		r := &recorder{T: t}
		nplusone.AssertNone(r, t.Context())
		expect(t, r, "carries no scope", "ForTest")
	})
	t.Run("in a scope of production", func(t *testing.T) {
		r := &recorder{T: t}
		ctx, _ := nplusone.Begin(t.Context(), "GET /")
		loopOver(db.WithContext(ctx), 3)
		nplusone.AssertNone(r, ctx)
		expect(t, r, "GET /", "lines are known with Config.Development")
	})
}

func TestAssertMaxQueries(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{})
	r := &recorder{T: t}
	ctx := nplusone.ForTest(r)
	nplusone.AssertMaxQueries(r, ctx, 0)
	expect(t, r)
	nplusone.AssertMaxQueries(r, ctx, 1)
	expect(t, r, "saw no statement")

	r = &recorder{T: t}
	loopOver(db.WithContext(ctx), 3)
	find[Post](db.WithContext(ctx))
	nplusone.AssertMaxQueries(r, ctx, 4)
	expect(t, r)
	nplusone.AssertMaxQueries(r, ctx, 3)
	expect(t, r, "nplusone: 4 statements, at most 3 allowed", `       3 x  SELECT * FROM "authors"`, `       1 x  SELECT * FROM "posts"`, "loop_test.go:")
	r = &recorder{T: t}
	nplusone.AssertMaxQueries(r, t.Context(), 3)
	expect(t, r, "carries no scope")
}

type Shelf struct {
	ID    uint
	Books []Book
}

type Book struct {
	ID      uint
	ShelfID uint
}

func TestAssertConstantQueries(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{})
	if err := db.AutoMigrate(&Shelf{}, &Book{}); err != nil {
		t.Fatal(err)
	}
	populate := func(n int) {
		for range n {
			if err := db.Create(&Shelf{Books: []Book{{}, {}}}).Error; err != nil {
				t.Fatal(err)
			}
		}
	}
	r := &recorder{T: t}
	nplusone.AssertConstantQueries(r, []int{2, 3}, populate, func(ctx context.Context) {
		find[Shelf](db.WithContext(ctx).Preload("Books"))
	})
	expect(t, r)

	all := db.Session(&gorm.Session{AllowGlobalUpdate: true})
	all.Delete(&Book{})
	all.Delete(&Shelf{})
	nplusone.AssertConstantQueries(r, []int{2, 3}, populate, func(ctx context.Context) {
		for _, s := range find[Shelf](db.WithContext(ctx)) {
			db.WithContext(ctx).Where("shelf_id = ?", s.ID).Find(&s.Books)
		}
	})
	expect(t, r, "nplusone: 3 statements with populate(2), 6 statements with populate(3)", `2 -> 5  SELECT * FROM "books" WHERE shelf_id = ?`, "assert_test.go:", `db.Preload("Books")`)

	r = &recorder{T: t}
	nplusone.AssertConstantQueries(r, []int{2, 3}, func(int) {}, func(context.Context) { find[Shelf](db) })
	expect(t, r, "saw no statement")
	r = &recorder{T: t}
	nplusone.AssertConstantQueries(r, []int{2}, func(int) {}, func(context.Context) {})
	expect(t, r, "at least two sizes")
}
