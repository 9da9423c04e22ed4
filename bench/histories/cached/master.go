package cached

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

// lookEvery is how often the servers are looked at.
const lookEvery = 50 * time.Millisecond

// masters watches who is the master of each pair. Another is promoted when the
// sentinel, or the others of a Cluster, take it for dead, which on a busy machine may
// be at any time; what the master was told last may be lost then, whether a fault of
// the run did it or not.
type masters struct {
	now     func() int64
	stop    context.CancelFunc
	looking sync.WaitGroup
	mu      sync.Mutex   // guards changes
	changes []run.Change // From: when all that the old master knew was last on the new one
}

func watchMasters(redis keeper, now func() int64) *masters {
	ctx, stop := context.WithCancel(context.Background())
	m := &masters{now: now, stop: stop}
	for _, g := range redis.pairs() {
		m.looking.Go(func() { m.watch(ctx, g) })
	}
	return m
}

func (m *masters) watch(ctx context.Context, g pair) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var master *testbed.Redis
	inStep := m.now()
	for {
		if is, err := g.master(ctx); err == nil {
			if master != nil && is != master {
				m.mu.Lock()
				m.changes = append(m.changes, run.Change{Name: g.name, Was: master.Name(), Is: is.Name(), Span: run.Span{From: inStep, To: m.now()}})
				m.mu.Unlock()
			}
			master = is
			if at := m.now(); g.stands(ctx, master) {
				inStep = at
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stands reports whether the others are the master's replicas and have all that the
// master had been told when it was asked first.
func (g pair) stands(ctx context.Context, master *testbed.Redis) bool {
	told := replication(ctx, master)
	offset, err := strconv.ParseInt(told["master_repl_offset"], 10, 64)
	if err != nil || told["role"] != "master" {
		return false
	}
	for _, other := range g.nodes {
		if other == master {
			continue
		}
		has := replication(ctx, other)
		got, err := strconv.ParseInt(has["slave_repl_offset"], 10, 64)
		if err != nil || has["role"] != "slave" || has["master_link_status"] != "up" || has["master_port"] != strconv.Itoa(master.Port()) || got < offset {
			return false
		}
	}
	return true
}

// replication is what a server says of it; nothing when it gives no answer.
func replication(ctx context.Context, r *testbed.Redis) map[string]string {
	reply, err := r.Do(ctx, "INFO", "replication")
	if err != nil {
		return nil
	}
	return fieldsOf(reply)
}

func fieldsOf(reply any) map[string]string {
	fields := map[string]string{}
	text, _ := reply.(string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

// end stops the watch and returns the changes.
func (m *masters) end() []run.Change {
	m.stop()
	m.looking.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

// redisServers are the data servers to be watched: each says which start of it it is.
func redisServers(redis keeper) (watched []run.Watched) {
	for _, r := range redis.Nodes() {
		watched = append(watched, run.Watched{Name: r.Name(), Look: func(ctx context.Context) (string, error) {
			reply, err := r.Do(ctx, "INFO", "server")
			if err != nil {
				return "", err
			}
			return fieldsOf(reply)["run_id"], nil
		}})
	}
	return watched
}

// watches are those of a run.
type watches struct {
	form            form
	masters         *masters
	redis, postgres *run.Watch
}

func (p *parent) watch() *watches {
	return &watches{
		form:     forms[p.settings.Redis],
		masters:  watchMasters(p.redis, p.clock.Now),
		redis:    run.StartWatch(lookEvery, p.clock.Now, redisServers(p.redis)...),
		postgres: run.StartWatch(4*lookEvery, p.clock.Now, run.Postgres(p.cluster.Nodes()...)...),
	}
}

// end stops them and has the history know what has become of the servers.
func (w *watches) end(h *history, happened run.Happened) {
	h.judge(w.form, w.masters.end(), w.redis.Stop(), w.postgres.Stop(), happened)
}

// judge takes in what has become of the servers. Each change of a master is a
// failover, of which the contract allows what it allows of any, also where no fault
// has asked for it; but where both have agreed nothing was lost. Of a Redis that has started, or a Postgres that was promoted or
// started, by itself the checker knows nothing: such a run shows nothing.
func (h *history) judge(f form, masters, redis, postgres []run.Change, happened run.Happened) {
	for _, c := range masters {
		h.failovers++
		if len(run.Unasked([]run.Change{c}, happened, f.changes...)) > 0 {
			h.unasked++
		}
		if len(run.Unasked([]run.Change{c}, happened, f.agreed...)) > 0 {
			h.restored = append(h.restored, run.Span{From: c.From, To: c.To + int64(lease+recovers)})
		}
	}
	h.noProof = append(h.noProof, run.Unasked(redis, happened, f.starts...)...)
	h.noProof = append(h.noProof, run.Unasked(postgres, happened)...)
}
