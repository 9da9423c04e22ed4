package main

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorminfra/infra/bench/histories/clock"
	"github.com/gorminfra/infra/bench/histories/run"
	"github.com/gorminfra/infra/internal/testbed"
)

const (
	maxLag   = time.Second
	interval = 100 * time.Millisecond
	cells    = 96
	// applyDelay is how late one of the replicas is all the time.
	applyDelay = "150ms"
)

// parent runs the servers and the workers.
type parent struct {
	settings settings
	folder   string
	key      []byte // of tokens
	cluster  *testbed.Cluster
	clock    clock.Clock
	random   *rand.Rand
	lives    []*child // of all workers, by their number

	mu      sync.Mutex // guards the next
	workers []*child   // by place: the present life

	happened run.Happened
	absences []run.Span
	failure  chan error // the first failure of a worker
}

// child is a worker's process. When it is killed another one takes its place.
type child struct {
	parent    *parent
	place     int
	life      int // its number among all
	process   *run.Process
	log       string
	answers   chan answer
	readBacks atomic.Int64
	// handedOver counts the sessions that it gave to others.
	handedOver atomic.Int64
	reasons    map[string]uint64 // once ended
	refusals   map[string]int    // once ended
	killed     atomic.Int64      // when, 0: it was not
}

// play lets a history happen.
func play(ctx context.Context, s settings) (h *history, happened run.Happened, err error) {
	folder := s.keep
	if folder == "" {
		if folder, err = os.MkdirTemp("", "infra-histories-"); err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	}
	p := &parent{
		settings: s, folder: folder, key: make([]byte, 32), random: newRandom(s.seed),
		happened: run.Happened{}, failure: make(chan error, 1),
	}
	_, _ = crand.Read(p.key)
	if p.clock, err = clock.New(); err != nil {
		return nil, nil, err
	}
	if p.cluster, err = testbed.StartCluster(ctx, testbed.ClusterConfig{Replicas: s.replicas}); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, p.cluster.Close()) }()
	if err := p.prepare(ctx); err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, w := range p.lives {
			w.process.End()
		}
	}()
	watch := run.StartWatch(2*interval, p.clock.Now, run.Postgres(p.cluster.Nodes()...)...)
	defer watch.Stop()
	p.workers = make([]*child, s.workers)
	for place := range p.workers {
		if err := p.start(ctx, place); err != nil {
			return nil, nil, err
		}
	}
	for _, w := range p.workers {
		if _, err := p.wait(ctx, w, "ready"); err != nil {
			return nil, nil, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	err = p.schedule(limited)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return nil, nil, err
	}
	for _, w := range p.workers {
		if err := w.stop(ctx); err != nil {
			return nil, nil, err
		}
	}
	select {
	case err := <-p.failure:
		return nil, nil, err
	default:
	}
	if h, err = p.collect(ctx); err != nil {
		return nil, nil, err
	}
	h.noProof = run.Unasked(watch.Stop(), p.happened, startPostgres...)
	return h, p.happened, nil
}

// prepare makes the tables, with pages to be filled: a reader that finds one
// fuller than its fillfactor tidies it up, which writes WAL.
func (p *parent) prepare(ctx context.Context) error {
	err := p.cluster.Primary().Exec(ctx, "", fmt.Sprintf(`
		CREATE TABLE cells (id bigint PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL);
		CREATE TABLE journal (writer bigint NOT NULL, cell bigint NOT NULL, version bigint NOT NULL);
		INSERT INTO cells SELECT i, 0, 0 FROM generate_series(0, %d) i`, cells-1))
	if err != nil {
		return err
	}
	if err := p.cluster.WaitCaughtUp(ctx); err != nil {
		return err
	}
	return p.cluster.Replica(1).Set(ctx, "recovery_min_apply_delay", applyDelay)
}

func (p *parent) readBacks() (n int64) {
	for _, w := range p.lives {
		n += w.readBacks.Load()
	}
	return n
}

// start gives a place among the workers to a new process.
func (p *parent) start(ctx context.Context, place int) error {
	life := len(p.lives)
	cfg := workerConfig{
		Index: life, Seed: p.settings.seed, Cells: cells, Sessions: p.settings.sessions, Scopeless: place == 0,
		MaxLag: maxLag, Interval: interval, Log: filepath.Join(p.folder, fmt.Sprintf("worker%d.log", life)), Key: p.key,
	}
	for _, n := range p.cluster.Nodes() {
		cfg.Nodes = append(cfg.Nodes, nodeConfig{n.Name(), n.DSN("")})
	}
	w := &child{parent: p, place: place, life: life, log: cfg.Log, answers: make(chan answer, 16)}
	// Whom a session goes to is drawn apart from the faults, which come at times
	// of their own.
	random := newRandom(uint64(life) + 1)
	process, err := run.Start(ctx, workerEnv, cfg, func(line []byte) { w.hear(line, random) }, w.fail)
	if err != nil {
		return err
	}
	w.process = process
	p.lives = append(p.lives, w)
	p.mu.Lock()
	p.workers[place] = w
	p.mu.Unlock()
	return nil
}

// someScoped is a worker that works in scopes; nil while all are being started.
func (p *parent) someScoped(random *rand.Rand) *child {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workers[1+random.IntN(len(p.workers)-1)]
}

// hear takes in what a worker says.
func (w *child) hear(line []byte, random *rand.Rand) {
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		a = answer{Did: "failed", Error: err.Error()}
	}
	switch a.Did {
	case "progress":
		w.readBacks.Store(a.ReadBacks)
	case "session":
		to := w.parent.someScoped(random)
		if to == nil {
			return
		}
		to.process.Tell(command{Do: "session", Session: a.Session})
		if to != w {
			w.handedOver.Add(1)
		}
	case "stop":
		w.reasons, w.refusals = a.Reasons, a.Refusals
	case "failed":
		w.fail(errors.New(a.Error))
	default:
		w.answers <- a
	}
}

// fail notes the failure of a worker, if it is one.
func (w *child) fail(err error) {
	if err == nil || w.killed.Load() != 0 {
		return
	}
	select {
	case w.parent.failure <- fmt.Errorf("worker %d: %w", w.place, err):
	default:
	}
}

func (p *parent) ask(ctx context.Context, w *child, c command) (answer, error) {
	w.process.Tell(c)
	return p.wait(ctx, w, c.Do)
}

func (p *parent) askAll(ctx context.Context, c command) error {
	for _, w := range p.workers {
		w.process.Tell(c)
	}
	for _, w := range p.workers {
		if _, err := p.wait(ctx, w, c.Do); err != nil {
			return err
		}
	}
	return nil
}

func (p *parent) wait(ctx context.Context, w *child, what string) (answer, error) {
	for {
		select {
		case a := <-w.answers:
			if a.Did == what {
				return a, nil
			}
		case <-w.process.Ended():
			return answer{}, fmt.Errorf("worker %d ended before it said %s", w.place, what)
		case <-ctx.Done():
			return answer{}, fmt.Errorf("worker %d: wait for %s: %w", w.place, what, ctx.Err())
		}
	}
}

func (w *child) stop(ctx context.Context) error {
	w.process.Tell(command{Do: "stop"})
	select {
	case <-w.process.Ended():
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("worker %d does not stop", w.place)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends the process as a crash does.
func (w *child) kill() {
	w.killed.Store(w.parent.clock.Now())
	w.process.Kill()
}

// collect reads the logs, into one order of the operations' starts, and the journal
// of the primary.
func (p *parent) collect(ctx context.Context) (*history, error) {
	h := &history{absences: p.absences, killed: map[uint16]int64{}, reasons: map[string]uint64{}, refusals: map[string]int{}}
	for _, w := range p.lives {
		for why, count := range w.reasons {
			h.reasons[why] += count
		}
		for text, count := range w.refusals {
			h.refusals[text] += count
		}
		ops, err := readLog(w.log)
		if err != nil {
			return nil, err
		}
		if at := w.killed.Load(); at != 0 {
			h.killed[uint16(w.life)] = at
		}
		h.ops = append(h.ops, h.finished(ops)...)
	}
	slices.SortFunc(h.ops, func(a, b op) int { return cmp.Compare(a.Start, b.Start) })
	conn, err := p.cluster.Primary().Conn(ctx, "")
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "SELECT writer, cell, version FROM journal")
	if err != nil {
		return nil, err
	}
	h.journal, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (e Entry, err error) {
		err = r.Scan(&e.Writer, &e.Cell, &e.Version)
		return e, err
	})
	return h, err
}
