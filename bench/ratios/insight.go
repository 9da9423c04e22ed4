package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/sqltext"
	"github.com/gorminfra/infra/nplusone"
)

// insight is what a statement in a scope pays for being looked at, and what the
// scope itself costs a request.
func insight(ctx context.Context) (rows []row, err error) {
	for _, c := range []struct {
		name        string
		development bool
		goal        float64
	}{
		{"with call sites", true, 500},
		{"production", false, 100},
	} {
		alone, request, err := inScope(ctx, c.development)
		if err != nil {
			return nil, err
		}
		rows = append(rows,
			atMostAbove("statement in a scope, "+c.name, "the same in no scope", alone, c.goal),
			atMostAbove("request of ten statements, "+c.name, "the same in no scope", request, 10_000))
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
// without: both pass the hooks, only one is collected. Of alone an operation is a
// statement of a scope that is open; of request it is a whole scope, with the
// context and the session that go with it, its statements and its report.
func inScope(ctx context.Context, development bool) (alone, request pair, err error) {
	db, err := openNull()
	if err != nil {
		return alone, request, err
	}
	detector := nplusone.New(nplusone.Config{Development: development, Logger: slog.New(slog.DiscardHandler), Output: io.Discard})
	if err := db.Use(detector); err != nil {
		return alone, request, err
	}
	defer func() { err = errors.Join(err, detector.Close()) }()
	open := func(n int) {
		ctx, s := nplusone.Begin(ctx, "request")
		different(db.WithContext(ctx), n)
		_ = s // without its report
	}
	closed := func(n int) { different(db.WithContext(ctx), n) }
	alone = measure(open, closed)
	in := func(n int) {
		for range n {
			ctx, s := nplusone.Begin(ctx, "request")
			different(db.WithContext(ctx), statementsPerScope)
			s.End()
		}
	}
	out := func(n int) {
		for range n {
			different(db.WithContext(ctx), statementsPerScope)
		}
	}
	return alone, measure(in, out), nil
}

// different reads n rows, each by another key.
func different(db *gorm.DB, n int) {
	for i := range n {
		var it item
		must(db.First(&it, 1+i%4096).Error)
	}
}

// empty is a loop of nothing, the peer of absolute times.
func empty(n int) {
	for i := range n {
		sink.Store(int64(i))
	}
}

var sink atomic.Int64 // keeps the loop
