package main

import (
	"bufio"
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorminfra/infra/bench/histories/clock"
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
	cluster  *testbed.Cluster
	clock    clock.Clock
	random   *rand.Rand
	workers  []*child
	happened map[string][]span
	absences []span
	failure  chan error // the first failure of a worker
}

// child is a worker's process.
type child struct {
	parent    *parent
	index     int
	cmd       *exec.Cmd
	log       string
	inMu      sync.Mutex // guards in
	in        io.WriteCloser
	answers   chan answer
	readBacks atomic.Int64
	reasons   map[string]uint64 // once ended
	refusals  map[string]int    // once ended
	ended     chan struct{}
}

// run lets a history happen.
func run(ctx context.Context, s settings) (h *history, happened map[string][]span, err error) {
	folder := s.keep
	if folder == "" {
		if folder, err = os.MkdirTemp("", "infra-histories-"); err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	}
	p := &parent{random: newRandom(s.seed), happened: map[string][]span{}, failure: make(chan error, 1)}
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
	key := make([]byte, 32)
	_, _ = crand.Read(key)
	for i := range s.workers {
		w, err := p.start(ctx, s, i, key, filepath.Join(folder, fmt.Sprintf("worker%d.log", i)))
		if err != nil {
			return nil, nil, err
		}
		defer w.end()
		p.workers = append(p.workers, w)
	}
	for _, w := range p.workers {
		if _, err := p.wait(ctx, w, "ready"); err != nil {
			return nil, nil, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	err = p.schedule(limited, s.faults, func() bool { return p.readBacks() >= s.ops })
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
	h, err = p.collect(ctx)
	return h, p.happened, err
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
	for _, w := range p.workers {
		n += w.readBacks.Load()
	}
	return n
}

func (p *parent) start(ctx context.Context, s settings, index int, key []byte, log string) (*child, error) {
	cfg := workerConfig{
		Index: index, Seed: s.seed, Cells: cells, Sessions: s.sessions, Scopeless: index == 0,
		MaxLag: maxLag, Interval: interval, Log: log, Key: key,
	}
	for _, n := range p.cluster.Nodes() {
		cfg.Nodes = append(cfg.Nodes, nodeConfig{n.Name(), n.DSN("")})
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &child{parent: p, index: index, log: log, answers: make(chan answer, 16), ended: make(chan struct{})}
	w.cmd = exec.CommandContext(ctx, self)
	w.cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go w.listen(out)
	return w, nil
}

// listen takes in what a worker says, until it ends.
func (w *child) listen(out io.Reader) {
	defer close(w.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	// Whom a session goes to is drawn apart from the faults, which come at times
	// of their own.
	random := newRandom(uint64(w.index) + 1)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			a = answer{Did: "failed", Error: err.Error()}
		}
		switch a.Did {
		case "progress":
			w.readBacks.Store(a.ReadBacks)
		case "session":
			others := w.parent.workers[1:]
			others[random.IntN(len(others))].tell(command{Do: "session", Session: a.Session})
		case "stop":
			w.reasons, w.refusals = a.Reasons, a.Refusals
		case "failed":
			w.fail(errors.New(a.Error))
		default:
			w.answers <- a
		}
	}
	if err := w.cmd.Wait(); err != nil {
		w.fail(err)
	}
}

func (w *child) fail(err error) {
	select {
	case w.parent.failure <- fmt.Errorf("worker %d: %w", w.index, err):
	default:
	}
}

// tell sends a command. That a worker has gone shows in its answers.
func (w *child) tell(c command) {
	line, err := json.Marshal(c)
	if err != nil {
		panic(err) // it has no such fields
	}
	w.inMu.Lock()
	defer w.inMu.Unlock()
	_, _ = w.in.Write(append(line, '\n'))
}

func (p *parent) ask(ctx context.Context, w *child, c command) (answer, error) {
	w.tell(c)
	return p.wait(ctx, w, c.Do)
}

func (p *parent) askAll(ctx context.Context, c command) error {
	for _, w := range p.workers {
		w.tell(c)
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
		case <-w.ended:
			return answer{}, fmt.Errorf("worker %d ended before it said %s", w.index, what)
		case <-ctx.Done():
			return answer{}, fmt.Errorf("worker %d: wait for %s: %w", w.index, what, ctx.Err())
		}
	}
}

func (w *child) stop(ctx context.Context) error {
	w.tell(command{Do: "stop"})
	select {
	case <-w.ended:
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("worker %d does not stop", w.index)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end ends a worker that was not stopped, and waits for it.
func (w *child) end() {
	w.inMu.Lock()
	_ = w.in.Close()
	w.inMu.Unlock()
	select {
	case <-w.ended:
	case <-time.After(5 * time.Second):
		_ = w.cmd.Process.Kill()
		<-w.ended
	}
}

// collect reads the logs, into one order of the operations' starts, and the journal
// of the primary.
func (p *parent) collect(ctx context.Context) (*history, error) {
	h := &history{absences: p.absences, reasons: map[string]uint64{}, refusals: map[string]int{}}
	for _, w := range p.workers {
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
		h.ops = append(h.ops, ops...)
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
