package testbed

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// CreateDatabase creates a database on the primary and waits until every
// running replica has it.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	if err := c.Primary().Exec(ctx, "", "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return err
	}
	return c.WaitCaughtUp(ctx)
}

// DropDatabase drops a database with all sessions in it. It does not wait for
// the replicas.
func (c *Cluster) DropDatabase(ctx context.Context, name string) error {
	return c.Primary().Exec(ctx, "", "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

var databases atomic.Int64

// NewDatabase creates an empty database for one test, waits until every
// replica has it, and drops it when the test ends. It returns its name, for
// [Node.DSN].
func (c *Cluster) NewDatabase(tb TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	name := databaseName(tb.Name(), databases.Add(1))
	if err := c.CreateDatabase(ctx, name); err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(func() {
		if !c.Primary().Running() {
			return // the test stopped it, and its cluster ends with the test
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.DropDatabase(ctx, name); err != nil {
			tb.Logf("database %s stays until the cluster ends: %v", name, err)
		}
	})
	return name
}

// databaseName turns a test's name into an identifier of at most 63 bytes that
// needs no quoting in a URL.
func databaseName(test string, serial int64) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, test)
	return fmt.Sprintf("t%d_%s", serial, clean[:min(len(clean), 40)])
}
