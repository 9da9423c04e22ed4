package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/sqltext"
	"github.com/gorminfra/infra/nplusone"
)

// insight is what a statement in a scope pays for being looked at.
func insight(ctx context.Context) (rows []row, err error) {
	bare, err := openNull()
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name        string
		development bool
		goal        float64
	}{
		{"statement in a scope with call sites", true, 500},
		{"statement in a scope, production", false, 100},
	} {
		above, err := inScope(ctx, bare, c.development)
		if err != nil {
			return nil, err
		}
		rows = append(rows, atMostAbove(c.name, "the same in no scope", above, c.goal))
	}
	text := `SELECT * FROM "items" WHERE "items"."id" = $1 ORDER BY "items"."id" LIMIT $2`
	known := func(n int) {
		for range n {
			sqltext.Analyze(text)
		}
	}
	return append(rows, atMostNanos("fingerprint of a known text", measure(known, empty), 30)), nil
}

// inScope measures statements in scopes against those of the same database
// without: both pass the hooks, only one is collected.
func inScope(ctx context.Context, _ *gorm.DB, development bool) (p pair, err error) {
	db, err := openNull()
	if err != nil {
		return p, err
	}
	detector := nplusone.New(nplusone.Config{Development: development, Logger: slog.New(slog.DiscardHandler)})
	if err := db.Use(detector); err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, detector.Close()) }()
	in := func(n int) {
		for n > 0 {
			ctx, s := nplusone.Begin(ctx, "request")
			db := db.WithContext(ctx)
			for range min(n, statementsPerScope) {
				var it item
				must(db.First(&it, 7).Error)
			}
			n -= statementsPerScope
			_ = s
		}
	}
	out := func(n int) {
		for n > 0 {
			db := db.WithContext(ctx)
			for range min(n, statementsPerScope) {
				var it item
				must(db.First(&it, 7).Error)
			}
			n -= statementsPerScope
		}
	}
	return measure(in, out), nil
}

// empty is a loop of nothing, the peer of absolute times.
func empty(n int) {
	for i := range n {
		sink.Store(int64(i))
	}
}

var sink atomic.Int64 // keeps the loop
