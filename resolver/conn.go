package resolver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// Access says what a [Conn] is for.
type Access uint8

const (
	// Read keeps reads on one replica that is fit.
	Read Access = iota
	// Write sends everything to the primary.
	Write
)

func (a Access) String() string {
	switch a {
	case Read:
		return "read"
	case Write:
		return "write"
	}
	return fmt.Sprintf("Access(%d)", uint8(a))
}

// Conn is a handle for SQL of one's own that passes the plugin as GORM's
// statements do: it is routed, limited, counted, and its writes empty caches
// and are seen by later reads. It is not a connection: each statement takes one
// of the node's pool. Safe for concurrent use.
type Conn struct {
	pool   *hook.Pool
	access Access
	node   atomic.Pointer[node] // where reads are to stay; nil: nowhere
}

var (
	_ gorm.ConnPool         = (*Conn)(nil)
	_ gorm.ConnPoolBeginner = (*Conn)(nil)
)

// Conn gives a handle for reads or for writes. For reads a replica is chosen now,
// by what ctx says; each statement stays there as long as the replica is fit for
// it. A write through a handle for reads goes to the primary. It does not block.
func (r *Resolver) Conn(ctx context.Context, access Access) (*Conn, error) {
	if access > Write {
		return nil, fmt.Errorf("resolver: access is %v: must be Read or Write", access)
	}
	if !r.opened.Load() {
		return nil, errors.New("resolver: not in use: call db.Use first, without Disabled")
	}
	pool := hookPool(r.hub.DB().ConnPool)
	if pool == nil {
		return nil, fmt.Errorf("resolver: the pool of the *gorm.DB was replaced by a %T", r.hub.DB().ConnPool)
	}
	c := &Conn{pool: pool, access: access}
	if access == Read && r.live.Load() {
		var q question
		r.ask(&q, optionsOf(ctx), hook.Hint{}, openScope(ctx), &place{r: r})
		if n, why := r.decide(&q); why == reasonReplica {
			c.node.Store(n)
		}
	}
	return c, nil
}

func hookPool(pool gorm.ConnPool) *hook.Pool {
	switch p := pool.(type) {
	case *hook.Pool:
		return p
	case *gorm.PreparedStmtDB:
		return hookPool(p.ConnPool)
	}
	return nil
}

func (c *Conn) with(ctx context.Context) context.Context {
	if c.access == Write {
		return Primary(ctx)
	}
	return with(ctx, func(o *options) { o.conn = c })
}

// ExecContext runs a statement without rows.
func (c *Conn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return c.pool.ExecContext(c.with(ctx), query, args...)
}

// QueryContext runs a statement with rows, which the caller closes.
func (c *Conn) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return c.pool.QueryContext(c.with(ctx), query, args...)
}

// QueryRowContext runs a statement with at most one row.
func (c *Conn) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return c.pool.QueryRowContext(c.with(ctx), query, args...)
}

// PrepareContext prepares a statement on the primary. What is done with it is
// not seen by the plugin.
func (c *Conn) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return c.pool.PrepareContext(ctx, query)
}

// BeginTx begins a transaction: on the primary, or, if it is read-only, where the
// handle's reads go.
func (c *Conn) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	return c.pool.BeginTx(c.with(ctx), opts)
}
