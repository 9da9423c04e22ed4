package hook_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/replay"
)

// part takes part in every stage. Reads go to real replicas, in turn, once they
// have caught up: a write that is sent there is refused by the server. Every
// second read is kept in memory and replayed, as a cache would.
type part struct {
	hub      *hook.Hub
	probe    *sql.DB // to the primary
	replicas []*hook.Node
	pools    []*sql.DB

	// refuse, if set, is asked by the gate and the charger.
	refuse func(stage string, r *hook.Record) error

	mu      sync.Mutex // guards the rest
	turn    int
	gated   int
	charged int
	served  int
	dones   int
	records []*hook.Record
	events  []string
	nodes   map[string]int
}

var (
	_ hook.Gate        = (*part)(nil)
	_ hook.Server      = (*part)(nil)
	_ hook.Charger     = (*part)(nil)
	_ hook.Router      = (*part)(nil)
	_ hook.Observer    = (*part)(nil)
	_ hook.TxnObserver = (*part)(nil)
)

func newPart(t *testing.T, e *env, hub *hook.Hub) *part {
	t.Helper()
	p := &part{hub: hub, probe: e.raw, nodes: map[string]int{}}
	for i, n := range e.cluster.Replicas() {
		node := hub.NewNode(n.Name(), e.replicas[i])
		t.Cleanup(node.Close)
		p.replicas, p.pools = append(p.replicas, node), append(p.pools, e.replicas[i])
	}
	return p
}

func (p *part) Gate(_ context.Context, r *hook.Record) error {
	p.mu.Lock()
	p.gated++
	p.mu.Unlock()
	if p.refuse != nil {
		return p.refuse("gate", r)
	}
	return nil
}

func (p *part) Charge(_ context.Context, r *hook.Record) error {
	p.mu.Lock()
	p.charged++
	p.mu.Unlock()
	if p.refuse != nil {
		return p.refuse("charge", r)
	}
	return nil
}

func (p *part) Serves(r *hook.Record) bool { return r.Access == hook.ReadOnly }

func (p *part) Serve(ctx context.Context, r *hook.Record) (*sql.Rows, error) {
	rows, err := r.Next(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.served++
	keep := p.served%2 == 0
	p.mu.Unlock()
	if !keep {
		return rows, nil
	}
	kept, err := keepRows(rows)
	if err != nil {
		return nil, err
	}
	return p.hub.Replay().Rows(ctx, kept)
}

// kept is a result in memory.
type kept struct {
	cols []replay.Column
	rows [][]driver.Value
}

func keepRows(live *sql.Rows) (*kept, error) {
	src, err := replay.FromRows(live)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	k := &kept{cols: src.Columns()}
	for {
		row := make([]driver.Value, len(k.cols))
		switch err := src.Next(row); err {
		case nil:
			k.rows = append(k.rows, row)
		case io.EOF:
			return k, nil
		default:
			return nil, err
		}
	}
}

func (k *kept) Columns() []replay.Column { return k.cols }
func (k *kept) Close() error             { return nil }
func (k *kept) Next(dest []driver.Value) error {
	if len(k.rows) == 0 {
		return io.EOF
	}
	copy(dest, k.rows[0])
	k.rows = k.rows[1:]
	return nil
}

func (p *part) Route(ctx context.Context, r *hook.Record) (*hook.Node, error) {
	if r.Access != hook.ReadOnly || r.NeedPrimary || r.Hint().Write {
		return p.hub.Primary(), nil
	}
	if r.Parent != nil && r.Parent.Node != nil {
		return r.Parent.Node, nil
	}
	return p.replica(ctx)
}

// replica returns a replica that has replayed all that was committed.
func (p *part) replica(ctx context.Context) (*hook.Node, error) {
	p.mu.Lock()
	i := p.turn % len(p.replicas)
	p.turn++
	p.mu.Unlock()
	var lsn string
	if err := p.probe.QueryRowContext(ctx, "SELECT pg_current_wal_flush_lsn()").Scan(&lsn); err != nil {
		return nil, err
	}
	for {
		var there bool
		err := p.pools[i].QueryRowContext(ctx, "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn).Scan(&there)
		if there || err != nil {
			return p.replicas[i], err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (p *part) Retry(context.Context, *hook.Record, error) *hook.Node { return nil }

func (p *part) Done(*hook.Record, *hook.Node, error, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dones++
}

func (p *part) RouteTx(ctx context.Context, opts *sql.TxOptions, hint hook.Hint) (*hook.Node, error) {
	if (opts != nil && opts.ReadOnly || hint.Read) && !hint.Write {
		return p.replica(ctx)
	}
	return p.hub.Primary(), nil
}

func (p *part) Observe(_ context.Context, r *hook.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records = append(p.records, &hook.Record{
		Chain: r.Chain, Where: r.Where, Outcome: r.Outcome, Access: r.Access, Retries: r.Retries, Background: r.Background,
		SQL: r.SQL, Text: r.Text, Scope: r.Scope, Txn: r.Txn, Parent: r.Parent, Node: r.Node, Rows: r.Rows, Err: r.Err,
		Start: r.Start, Duration: r.Duration,
	})
	if r.Node != nil {
		p.nodes[r.Node.Name]++
	}
}

func (p *part) Begin(t *hook.Txn) { p.event("begin", t) }

func (p *part) BeforeCommit(_ context.Context, t *hook.Txn) error {
	p.event("before commit", t)
	return nil
}

func (p *part) Ended(t *hook.Txn, outcome hook.TxnOutcome) { p.event(outcome.String(), t) }

func (p *part) event(what string, t *hook.Txn) {
	kind := "transaction"
	switch {
	case t.Foreign:
		kind = "foreign"
	case t.Autocommit:
		kind = "autocommit"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, fmt.Sprintf("%s %s", kind, what))
}

// seen returns copies of what was observed and told.
func (p *part) seen() (records []*hook.Record, events []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*hook.Record(nil), p.records...), append([]string(nil), p.events...)
}
