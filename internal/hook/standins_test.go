package hook_test

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"
)

// The plugins below do to GORM what the well-known ones do. They stand in for
// them so that the module does not depend on them.

// otelLike stands for gorm.io/plugin/opentelemetry: callbacks before and after
// each terminal callback, which put a span into the statement's context and
// take it out again.
type otelLike struct{ spans atomic.Int64 }

type spanKey struct{}

func (*otelLike) Name() string { return "otelgorm" }

func (p *otelLike) Initialize(db *gorm.DB) error {
	before := func(tx *gorm.DB) {
		tx.Statement.Context = context.WithValue(tx.Statement.Context, spanKey{}, tx.Statement.Context)
	}
	after := func(tx *gorm.DB) {
		if parent, ok := tx.Statement.Context.Value(spanKey{}).(context.Context); ok {
			tx.Statement.Context = parent
			p.spans.Add(1)
		}
	}
	cb := db.Callback()
	for _, err := range []error{
		cb.Create().Before("gorm:create").Register("otel:before:create", before), cb.Create().After("gorm:create").Register("otel:after:create", after),
		cb.Query().Before("gorm:query").Register("otel:before:select", before), cb.Query().After("gorm:query").Register("otel:after:select", after),
		cb.Update().Before("gorm:update").Register("otel:before:update", before), cb.Update().After("gorm:update").Register("otel:after:update", after),
		cb.Delete().Before("gorm:delete").Register("otel:before:delete", before), cb.Delete().After("gorm:delete").Register("otel:after:delete", after),
		cb.Row().Before("gorm:row").Register("otel:before:row", before), cb.Row().After("gorm:row").Register("otel:after:row", after),
		cb.Raw().Before("gorm:raw").Register("otel:before:raw", before), cb.Raw().After("gorm:raw").Register("otel:after:raw", after),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// prometheusLike stands for gorm.io/plugin/prometheus: it reads the pool's
// statistics, and counts in callbacks at the ends of the chains.
type prometheusLike struct{ statements atomic.Int64 }

func (*prometheusLike) Name() string { return "gorm:prometheus" }

func (p *prometheusLike) Initialize(db *gorm.DB) error {
	pool, err := db.DB()
	if err != nil {
		return err
	}
	_ = pool.Stats()
	count := func(*gorm.DB) { p.statements.Add(1) }
	cb := db.Callback()
	for _, err := range []error{
		cb.Create().After("*").Register("prom:create", count), cb.Query().After("*").Register("prom:query", count),
		cb.Update().After("*").Register("prom:update", count), cb.Delete().After("*").Register("prom:delete", count),
		cb.Row().After("*").Register("prom:row", count), cb.Raw().After("*").Register("prom:raw", count),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// shardingLike stands for gorm.io/sharding: before each chain it puts a pool of
// its own around the statement's, which is pool and transaction in one and
// sends another text.
type shardingLike struct {
	mu   sync.Mutex // guards last
	last string
}

func (*shardingLike) Name() string { return "gorm:sharding" }

func (p *shardingLike) Initialize(db *gorm.DB) error {
	switchPool := func(tx *gorm.DB) {
		if tx.Statement.ConnPool != nil {
			tx.Statement.ConnPool = &shardPool{ConnPool: tx.Statement.ConnPool, plugin: p}
		}
	}
	cb := db.Callback()
	for _, err := range []error{
		cb.Create().Before("*").Register("gorm:sharding", switchPool), cb.Query().Before("*").Register("gorm:sharding", switchPool),
		cb.Update().Before("*").Register("gorm:sharding", switchPool), cb.Delete().Before("*").Register("gorm:sharding", switchPool),
		cb.Row().Before("*").Register("gorm:sharding", switchPool), cb.Raw().Before("*").Register("gorm:sharding", switchPool),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

type shardPool struct {
	plugin *shardingLike
	gorm.ConnPool
}

func (p *shardPool) shard(text string) string {
	text = strings.ReplaceAll(text, `"companies"`, `"companies_01"`)
	p.plugin.mu.Lock()
	defer p.plugin.mu.Unlock()
	p.plugin.last = text
	return text
}

func (p *shardPool) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return p.ConnPool.ExecContext(ctx, p.shard(text), args...)
}

func (p *shardPool) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return p.ConnPool.QueryContext(ctx, p.shard(text), args...)
}

func (p *shardPool) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	return p.ConnPool.QueryRowContext(ctx, p.shard(text), args...)
}

func (p *shardPool) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	if base, ok := p.ConnPool.(gorm.ConnPoolBeginner); ok {
		return base.BeginTx(ctx, opts)
	}
	return p, nil
}

func (p *shardPool) Commit() error {
	if _, ok := p.ConnPool.(*sql.Tx); ok {
		return nil
	}
	if base, ok := p.ConnPool.(gorm.TxCommitter); ok {
		return base.Commit()
	}
	return nil
}

func (p *shardPool) Rollback() error {
	if _, ok := p.ConnPool.(*sql.Tx); ok {
		return nil
	}
	if base, ok := p.ConnPool.(gorm.TxCommitter); ok {
		return base.Rollback()
	}
	return nil
}
