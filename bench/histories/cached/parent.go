package cached

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorminfra/infra/bench/histories/clock"
	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

const (
	lease = 300 * time.Millisecond
	ttl   = 4 * time.Second
	// memoryTTL is the part of it that results stay in memory.
	memoryTTL = 8
	maxLag    = time.Second
	interval  = 100 * time.Millisecond
	// applyDelay is how late one of the replicas is all the time.
	applyDelay = "40ms"
	// recovers is what the contract allows after the return of a Redis with older
	// data, beyond the lease.
	recovers = time.Second
)

// parent runs the servers and the workers.
type parent struct {
	settings Settings
	folder   string
	cluster  *testbed.Cluster
	redis    keeper
	sentinel *testbed.RedisSentinel // nil in a Cluster
	shards   *testbed.RedisCluster  // nil under a sentinel
	links    []*testbed.Proxy       // in front of the replicas
	clock    clock.Clock
	random   *rand.Rand
	workers  []*child // by index: the present life
	lives    []*child
	probes   []op
	happened run.Happened
	schema   schema // of now
	h        *history
	failure  chan error // the first failure of a worker
}

// play lets a history happen.
func play(ctx context.Context, s Settings) (_ *parent, err error) {
	p := &parent{settings: s, folder: s.Keep, happened: run.Happened{}, failure: make(chan error, 1)}
	p.random = rand.New(rand.NewPCG(s.Seed, 0))
	p.h = &history{instances: map[uint8]instance{}, ttl: int64(ttl), maxLag: int64(maxLag)}
	if p.folder == "" {
		if p.folder, err = os.MkdirTemp("", "infra-histories-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(p.folder)) }()
	}
	if p.clock, err = clock.New(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.startServers(ctx); err != nil {
		return nil, err
	}
	watches := p.watch()
	defer func() { watches.end(p.h, p.happened) }() // also before the servers are stopped, on an error
	for i := range s.Workers {
		w, err := p.newChild(i)
		if err != nil {
			return nil, err
		}
		p.workers = append(p.workers, w)
		if err := p.startLife(ctx, w); err != nil {
			return nil, err
		}
	}
	for _, w := range p.workers {
		if err := w.await(ctx, "ready"); err != nil {
			return nil, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	pressing, relax := context.WithCancel(limited)
	pressed := make(chan struct{})
	go func() { defer close(pressed); p.press(pressing) }()
	err = p.schedule(limited)
	relax()
	<-pressed
	if err := errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	if err := p.finish(ctx); err != nil {
		return nil, err
	}
	select {
	case err := <-p.failure:
		return nil, err
	default:
	}
	return p, p.collect()
}

func (p *parent) startServers(ctx context.Context) (err error) {
	settings := map[string]string{"deadlock_timeout": "50ms"}
	if p.cluster, err = testbed.StartCluster(ctx, testbed.ClusterConfig{Replicas: p.settings.Replicas, Settings: settings}); err != nil {
		return err
	}
	if err = forms[p.settings.Redis].start(ctx, p); err != nil {
		p.redis = nil
		return err
	}
	for _, r := range p.cluster.Replicas() {
		link, err := testbed.StartProxy(r.Addr())
		if err != nil {
			return err
		}
		p.links = append(p.links, link)
	}
	err = p.cluster.Primary().Exec(ctx, "", fmt.Sprintf(`
		CREATE TABLE items (id int PRIMARY KEY, grp int NOT NULL, version bigint NOT NULL, writer bigint NOT NULL);
		CREATE TABLE heads (id int PRIMARY KEY, grp int NOT NULL, version bigint NOT NULL);
		CREATE TABLE stocks (id int PRIMARY KEY, grp int NOT NULL, version bigint NOT NULL, writer bigint NOT NULL);
		INSERT INTO items SELECT i, i %% %[2]d, 0, 0 FROM generate_series(0, %[1]d) i;
		INSERT INTO heads SELECT id, grp, version FROM items;
		INSERT INTO stocks SELECT * FROM items;`, items-1, groups)+p.schema.tables())
	if err != nil {
		return err
	}
	if err := p.cluster.WaitCaughtUp(ctx); err != nil {
		return err
	}
	return p.cluster.Replica(0).Set(ctx, "recovery_min_apply_delay", applyDelay)
}

func (p *parent) close() (err error) {
	for _, w := range p.workers {
		if w.process != nil {
			w.process.End()
		}
		err = errors.Join(err, w.closeProxies())
	}
	for _, link := range p.links {
		err = errors.Join(err, link.Close())
	}
	if p.redis != nil {
		err = errors.Join(err, p.redis.Close())
	}
	if p.cluster != nil {
		err = errors.Join(err, p.cluster.Close())
	}
	return err
}

func (p *parent) ops() (n int64) {
	for _, w := range p.lives {
		n += w.ops.Load()
	}
	return n
}

func (p *parent) askAll(ctx context.Context, do string) error {
	for _, w := range p.workers {
		w.process.Tell(command{Do: do})
	}
	for _, w := range p.workers {
		if err := w.await(ctx, do); err != nil {
			return err
		}
	}
	return nil
}

// finish lets everything come to rest, looks at the primary, and has every
// worker read all once more.
func (p *parent) finish(ctx context.Context) error {
	if err := p.askAll(ctx, "quiet"); err != nil {
		return err
	}
	if err := p.probe(ctx); err != nil {
		return err
	}
	if err := p.between(ctx, lease, 2*lease); err != nil {
		return err
	}
	if err := p.askAll(ctx, "sweep"); err != nil {
		return err
	}
	for _, w := range p.workers {
		if err := w.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// probe looks at the primary past the plugin. What it sees has been committed,
// also when its writer did not live to say so.
func (p *parent) probe(ctx context.Context) error {
	conn, err := p.cluster.Primary().Conn(ctx, "")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	o := op{Kind: kindProbe, Start: p.clock.Now()}
	found, err := conn.Query(ctx, "SELECT id, grp, version, writer FROM items UNION ALL SELECT id + $1, grp, version, writer FROM stocks UNION ALL SELECT id + $2, grp, token >> $3, token & 4294967295 FROM leaves",
		items, firstLeaf, tokenBits)
	if err != nil {
		return err
	}
	o.Cells, err = pgx.CollectRows(found, func(r pgx.CollectableRow) (c cell, err error) {
		err = r.Scan(&c.Row, &c.Grp, &c.Version, &c.Writer)
		return c, err
	})
	o.End = p.clock.Now()
	p.probes = append(p.probes, o)
	return err
}

// collect reads the logs, into one order of the operations' starts.
func (p *parent) collect() error {
	h := p.h
	h.ops = p.probes
	for _, w := range p.lives {
		ops, err := readLog(w.log)
		if err != nil {
			return err
		}
		h.ops = append(h.ops, ops...)
	}
	slices.SortStableFunc(h.ops, func(a, b op) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	return nil
}

func (p *parent) logPath(inst uint8) string {
	return filepath.Join(p.folder, fmt.Sprintf("instance%d.log", inst))
}
