package cached

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/bench/histories/clock"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/resolver"
)

// WorkerEnv holds what a worker is to do in its environment; see [RunWorker].
const WorkerEnv = "HISTORIES_CACHE_WORKER"

// workerConfig is what the parent tells a worker when it starts it.
type workerConfig struct {
	Index int
	Inst  uint8
	Seed  uint64
	Nodes []nodeConfig // the primary first
	Redis string       // its form
	Addrs []string     // of the sentinels, or the nodes of a Cluster
	// Commands and Messages lead from the address of a Redis to the proxy in
	// front of it, for commands and for the subscription.
	Commands, Messages map[string]string
	Split              bool          // messages come by Messages, not by Commands
	Lease              time.Duration // or cachehook.RevalidateAlways
	Entries            int           // in memory, at most
	FailWrite          bool
	Scoped             bool
	Leaves             bool // leaves and the view are cached, and read
	Readers, Writers   int
	Pause              time.Duration // between two reads, at most
	TTL                time.Duration
	MaxLag             time.Duration
	Interval           time.Duration // of probes
	Log                string        // path
}

type nodeConfig struct{ Name, DSN string }

// command is a line from the parent.
type command struct {
	Do string // quiet, rush, meet, write, graft, change, calm, sweep, die, stop
	// Point is where to die.
	Point string `json:",omitempty"`
	// Schema is what to change to.
	Schema *schema `json:",omitempty"`
}

// answer is a line to the parent.
type answer struct {
	Did   string           // ready, progress, what was commanded, failed
	Ops   int64            `json:",omitempty"`
	Error string           `json:",omitempty"`
	Stats *cachehook.Stats `json:",omitempty"` // at the end
	// Refusals counts the errors of operations, by their text.
	Refusals map[string]int `json:",omitempty"`
}

// pace is how writers write.
type pace int32

const (
	calm  pace = iota // by the seasons
	quiet             // not at all
	meet              // when told, where all reads are
	rush              // without a pause
)

// worker is one process that uses the plugin.
type worker struct {
	cfg    workerConfig
	clock  clock.Clock
	db     *gorm.DB
	plugin *infra.Plugin
	log    *opLog

	pace     atomic.Int32
	doom     atomic.Pointer[string] // where to die
	writing  sync.RWMutex           // held for reading by each write
	writes   atomic.Uint32
	sessions atomic.Uint32
	ops      atomic.Int64

	mu       sync.Mutex // guards refusals
	refusals map[string]int
	outMu    sync.Mutex // guards standard output
}

// RunWorker is the life of a worker's process: it works, and obeys what comes by
// standard input, until that ends.
func RunWorker(text string) (err error) {
	w := &worker{refusals: map[string]int{}}
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
	closeRedis, err := w.open(ctx)
	if err != nil {
		return err
	}
	defer closeRedis()
	defer func() { err = errors.Join(err, w.plugin.Close()) }()

	var wg sync.WaitGroup
	slot := func(n int, work func(context.Context, *rand.Rand)) {
		random := rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.cfg.Inst)<<32|uint64(n)))
		wg.Add(1)
		go func() {
			defer wg.Done()
			work(ctx, random)
		}()
	}
	for n := range w.cfg.Readers {
		slot(n, w.readOn)
	}
	for n := range w.cfg.Writers {
		slot(w.cfg.Readers+n, w.writeOn)
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
	stats := w.plugin.Cache().Stats()
	w.mu.Lock()
	refusals := maps.Clone(w.refusals)
	w.mu.Unlock()
	w.say(answer{Did: "stop", Stats: &stats, Refusals: refusals})
	return nil
}

// silent keeps the client's own log, which tells of each failover, to itself.
type silent struct{}

// Printf implements the client's logger.
func (silent) Printf(context.Context, string, ...any) {}

func (w *worker) open(ctx context.Context) (closeRedis func(), err error) {
	w.db, err = gorm.Open(postgres.Open(w.cfg.Nodes[0].DSN), &gorm.Config{Logger: logger.Discard, SkipDefaultTransaction: true})
	if err != nil {
		return nil, err
	}
	var replicas []resolver.Node
	for _, n := range w.cfg.Nodes[1:] {
		replicas = append(replicas, resolver.Node{Name: n.Name, DSN: n.DSN})
	}
	redis.SetLogger(silent{})
	rdb, closeRedis := w.client()
	slots := w.cfg.Readers + w.cfg.Writers
	cfg := infra.Config{
		Name: cacheName, Redis: rdb, Logger: slog.New(slog.DiscardHandler),
		Resolver: resolver.Config{
			Replicas: replicas, MaxLag: w.cfg.MaxLag,
			Pool:  resolver.Pool{Max: max(16, 2*slots), Min: 2},
			Probe: resolver.Probe{Interval: w.cfg.Interval},
		},
		Cache: cachehook.Config{
			Lease: w.cfg.Lease,
			// Long enough that a busy machine is no fault of its own.
			Timeout: 250 * time.Millisecond,
			L1:      cachehook.L1{MaxEntries: w.cfg.Entries, TTL: w.cfg.TTL},
			L2:      cachehook.L2{TTL: w.cfg.TTL},
			Tables:  map[string]cachehook.Rule{"items": {}, "stocks": {}},
		},
	}
	if w.cfg.Leaves {
		cfg.Cache.Tables["leaves"], cfg.Cache.Tables["shown"] = cachehook.Rule{}, cachehook.Rule{}
	}
	if w.cfg.FailWrite {
		cfg.Cache.OnRedisFailure = cachehook.FailWrite
	}
	w.plugin = infra.New(cfg)
	hub, err := hook.Attach(w.db)
	if err != nil {
		return closeRedis, err
	}
	_, first := hub.Register(forerunner{w})
	using := w.db.Use(w.plugin)
	_, last := hub.Register(tracer{w})
	if err := errors.Join(first, using, last); err != nil {
		return closeRedis, err
	}
	ready, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return closeRedis, w.plugin.Ready(ready)
}

// obey does what the parent says until it says stop, or is gone.
func (w *worker) obey(ctx context.Context) {
	random := rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.cfg.Inst)<<48))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			w.say(answer{Did: "failed", Error: err.Error()})
			return
		}
		switch c.Do {
		case "quiet":
			w.pace.Store(int32(quiet))
			w.writing.Lock()   // those under way have ended
			w.writing.Unlock() //nolint:staticcheck // that was all
		case "rush":
			w.pace.Store(int32(rush))
		case "meet":
			w.pace.Store(int32(meet))
		case "write":
			s, end := w.scope(ctx, random)
			s.write()
			end()
		case "graft":
			s, end := w.scope(ctx, random)
			_ = s.writeBy(s.writeRoot)
			end()
		case "change":
			s, end := w.scope(ctx, random)
			err := s.change(*c.Schema)
			end()
			if err != nil {
				w.say(answer{Did: "failed", Error: "change the schema: " + err.Error()})
				return
			}
		case "die":
			w.die(ctx, c.Point)
		case "calm":
			w.pace.Store(int32(calm))
		case "sweep":
			w.sweep(ctx)
		case "stop":
			return
		}
		w.say(answer{Did: c.Do})
	}
}

// die writes until it dies of it.
func (w *worker) die(ctx context.Context, point string) {
	w.doom.Store(&point)
	s, end := w.scope(ctx, rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.cfg.Inst))))
	defer end()
	for ctx.Err() == nil {
		s.write()
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
			w.say(answer{Did: "progress", Ops: w.ops.Load()})
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
	o.Inst = w.cfg.Inst
	if err := w.log.add(o); err != nil {
		w.say(answer{Did: "failed", Error: err.Error()})
	}
	if !o.Kind.interim() {
		w.ops.Add(1)
	}
	if refusal == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusals[fmt.Sprintf("%s: %s", o.Kind, numbers.ReplaceAllString(refusal.Error(), "…"))]++
}

// numbers make an error's text one of many: ports and process IDs.
var numbers = regexp.MustCompile(`\d{3,}`)
