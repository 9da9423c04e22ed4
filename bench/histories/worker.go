package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/bench/histories/clock"
	"github.com/gorminfra/infra/resolver"
)

// workerEnv holds a workerConfig in a worker's environment.
const workerEnv = "HISTORIES_WORKER"

// workerConfig is what the parent tells a worker when it starts it.
type workerConfig struct {
	Index    int // among all processes that there have been
	Seed     uint64
	Nodes    []nodeConfig // the first primary first
	Cells    int
	Sessions int // at a time
	// Scopeless: the worker opens no scopes, so that the process is the session.
	Scopeless bool
	MaxLag    time.Duration
	Interval  time.Duration // of probes
	Log       string        // path
	Key       []byte        // of tokens
}

type nodeConfig struct{ Name, DSN string }

// command is a line from the parent.
type command struct {
	Do string // pause, resume, page, session, stop
	// Session is to be continued.
	Session *handover `json:",omitempty"`
	// Primary is the DSN of the primary of now, for page.
	Primary string `json:",omitempty"`
	Rounds  int    `json:",omitempty"`
}

// answer is a line to the parent.
type answer struct {
	Did       string    // ready, progress, pause, page, session, failed
	Session   *handover `json:",omitempty"` // for another worker
	ReadBacks int64     `json:",omitempty"`
	Pages     int       `json:",omitempty"`
	Error     string    `json:",omitempty"`
	// Reasons counts the plugin's decisions, for the end.
	Reasons map[string]uint64 `json:",omitempty"`
	// Refusals counts the errors of operations, by their text.
	Refusals map[string]int `json:",omitempty"`
}

// handover is a session on its way to another scope or process.
type handover struct {
	ID    uint64
	Cells []uint32 // that it wrote
	Token string
}

// worker is one process that uses the plugin.
type worker struct {
	cfg    workerConfig
	clock  clock.Clock
	db     *gorm.DB
	plugin *infra.Plugin
	node   map[string]uint8

	gate     sync.RWMutex // held for reading by each operation, for writing by a pause
	arrivals chan handover
	ids      atomic.Uint64
	recent   atomic.Pointer[[]uint32] // cells that a scopeless worker wrote

	logMu    sync.Mutex // guards log and refusals
	log      *opLog
	refusals map[string]int

	outMu     sync.Mutex // guards standard output
	readBacks atomic.Int64
}

// Cell is a versioned row.
type Cell struct {
	ID      uint32
	Version int64
	Writer  int64
}

// Entry of the journal: each write leaves exactly one.
type Entry struct {
	Writer  int64
	Cell    uint32
	Version int64
}

// TableName implements gorm's Tabler.
func (Entry) TableName() string { return "journal" }

func runWorker(text string) (err error) {
	w := &worker{arrivals: make(chan handover, 64), node: map[string]uint8{}, refusals: map[string]int{}}
	if err := json.Unmarshal([]byte(text), &w.cfg); err != nil {
		return err
	}
	if w.clock, err = clock.New(); err != nil {
		return err
	}
	if w.log, err = createLog(w.cfg.Log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.log.close()) }()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if err := w.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.plugin.Close()) }()

	var wg sync.WaitGroup
	for slot := range w.cfg.Sessions {
		random := rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.cfg.Index)<<32|uint64(slot)))
		wg.Add(1)
		go func() {
			defer wg.Done()
			if w.cfg.Scopeless {
				w.runScopeless(ctx, slot, random)
			} else {
				w.runSessions(ctx, random)
			}
		}()
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		w.reportProgress(ctx)
	}()
	w.say(answer{Did: "ready"})
	w.obey(ctx)
	stop()
	wg.Wait()
	w.say(answer{Did: "stop", Reasons: w.reasons(), Refusals: w.refusals})
	return nil
}

func (w *worker) reasons() map[string]uint64 {
	sum := map[string]uint64{}
	for _, n := range w.plugin.Resolver().Nodes() {
		for why, count := range n.Decisions {
			sum[why] += count
		}
	}
	return sum
}

func (w *worker) open(ctx context.Context) (err error) {
	w.db, err = gorm.Open(postgres.Open(w.cfg.Nodes[0].DSN), &gorm.Config{Logger: logger.Discard, SkipDefaultTransaction: true})
	if err != nil {
		return err
	}
	var replicas []resolver.Node
	for i, n := range w.cfg.Nodes {
		w.node[n.Name] = uint8(i)
		if i > 0 {
			replicas = append(replicas, resolver.Node{Name: n.Name, DSN: n.DSN})
		}
	}
	w.plugin = infra.New(infra.Config{
		Name:   "histories",
		Logger: slog.New(slog.DiscardHandler),
		Resolver: resolver.Config{
			Replicas: replicas,
			MaxLag:   w.cfg.MaxLag,
			Session:  resolver.Session{Key: w.cfg.Key},
			Pool:     resolver.Pool{Max: max(16, 2*w.cfg.Sessions), Min: 4},
			Probe:    resolver.Probe{Interval: w.cfg.Interval},
		},
	})
	if err := w.db.Use(w.plugin); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return w.plugin.Ready(ready)
}

// obey does what the parent says until it says stop, or is gone.
func (w *worker) obey(ctx context.Context) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	paused := false
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			w.say(answer{Did: "failed", Error: err.Error()})
			return
		}
		switch c.Do {
		case "pause":
			if !paused {
				w.gate.Lock()
				paused = true
			}
			w.say(answer{Did: "pause"})
		case "page":
			hits, err := w.pageRounds(ctx, c.Primary, c.Rounds)
			a := answer{Did: "page", Pages: hits}
			if err != nil {
				a.Error = err.Error()
			}
			w.say(a)
		case "session":
			select {
			case w.arrivals <- *c.Session:
			default: // enough of them wait: this one ends here
			}
		}
		if paused && (c.Do == "resume" || c.Do == "stop") {
			w.gate.Unlock()
			paused = false
		}
		if c.Do == "stop" {
			return
		}
	}
	if paused {
		w.gate.Unlock()
	}
}

func (w *worker) reportProgress(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.say(answer{Did: "progress", ReadBacks: w.readBacks.Load()})
		}
	}
}

func (w *worker) say(a answer) {
	line, err := json.Marshal(a)
	if err != nil {
		panic(err) // it has no such fields
	}
	w.outMu.Lock()
	defer w.outMu.Unlock()
	fmt.Printf("%s\n", line)
}

// note logs an operation, and counts its error.
func (w *worker) note(o *op, refusal error) {
	o.Worker = uint16(w.cfg.Index)
	w.logMu.Lock()
	err := w.log.add(o)
	if refusal != nil {
		w.refusals[fmt.Sprintf("%s: %s", o.Kind, addresses.ReplaceAllString(refusal.Error(), ""))]++
	}
	w.logMu.Unlock()
	if err != nil {
		w.say(answer{Did: "failed", Error: err.Error()})
	}
}

// addresses make an error's text one of many: ports and process IDs.
var addresses = regexp.MustCompile(`127\.0\.0\.1:\d+(->127\.0\.0\.1:\d+)?|:\d+`)

// newID is unique over all workers, and fits into a bigint.
func (w *worker) newID() uint64 { return uint64(w.cfg.Index+1)<<40 | w.ids.Add(1) }

// workerOf is the worker that took an ID.
func workerOf(id uint64) uint16 { return uint16(id>>40) - 1 }
