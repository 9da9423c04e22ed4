package limithook

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

const (
	oracleEnv     = "LIMITHOOK_TEST_ORACLE" // Redis, namespace, seed, begin
	oracleWindow  = 1500 * time.Millisecond
	oracleWindows = 4 // as long as the children ask
	oracleChilds  = 3
	oracleCallers = 4 // goroutines of each, for each case
)

// oracleCase is a limit and how it is asked.
type oracleCase struct {
	name  string
	limit int
	lease int
	cost  int // at most
	// next waits for the next request and returns false when it is time to end.
	next func(p *pacer) time.Duration
}

// pacer is what a pattern may know: on the clock that the children share.
type pacer struct {
	r     *rand.Rand
	now   time.Time
	limit int
	n     int      // requests so far
	last  Decision // on the latest
}

var oracleCases = []oracleCase{
	// As many as the limit just before each border of fixed windows, and again after it.
	{"bursts at a boundary", 60, 1, 1, func(p *pacer) time.Duration {
		if share := p.limit/(oracleChilds*oracleCallers) + 2; p.n%share > 0 {
			return 0
		}
		to := oracleWindow - time.Duration(p.now.UnixNano())%oracleWindow
		if to > 5*time.Millisecond {
			return to - 3*time.Millisecond
		}
		return to
	}},
	{"a slow drip", 60, 1, 1, func(p *pacer) time.Duration {
		return oracleWindow * oracleChilds * oracleCallers / time.Duration(p.limit+p.limit/5)
	}},
	{"the instant that was told", 24, 1, 1, func(p *pacer) time.Duration { return p.last.RetryAfter }},
	{"one", 1, 1, 1, func(p *pacer) time.Duration { return p.last.RetryAfter }},
	{"at random, of several units", 90, 1, 3, func(p *pacer) time.Duration {
		return time.Duration(p.r.ExpFloat64() * float64(60*time.Millisecond))
	}},
	{"leased", 640, 16, 1, func(p *pacer) time.Duration { return min(p.last.RetryAfter, 2*time.Millisecond) }},
	{"leased, at random", 400, 8, 1, func(p *pacer) time.Duration {
		return time.Duration(p.r.ExpFloat64() * float64(25*time.Millisecond))
	}},
	{"very large", 1 << 31, 1024, 1, func(*pacer) time.Duration { return time.Millisecond }},
}

// told is what a child saw of one request. Instants are those of the wall clock,
// which all processes of a machine share.
type told struct {
	Case              int
	Before, After     int64
	Cost              int
	Allowed, Degraded bool
	// Strand is what this child has leased so far and not spent, lost or not.
	Strand int
}

// TestOracleChild is the program of the other processes.
func TestOracleChild(t *testing.T) {
	env := os.Getenv(oracleEnv)
	if env == "" {
		return // it is not a child
	}
	var addr, name string
	var seed uint64
	var begin int64
	if _, err := fmt.Sscan(env, &addr, &name, &seed, &begin); err != nil {
		t.Fatal(err)
	}
	out := os.NewFile(3, "told")
	enc := gob.NewEncoder(out)
	var mu sync.Mutex // guards enc
	var wg sync.WaitGroup
	c := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 64})
	defer func() { _ = c.Close() }()
	end := time.Unix(0, begin).Add(oracleWindows * oracleWindow)
	for i, oc := range oracleCases {
		l := testLimiter(t, Config{
			PerUser: Per(oc.limit, oracleWindow), Redis: c, Name: name + strconv.Itoa(i), Timeout: 20 * time.Second, OnRedisFailure: Closed,
			Lease: Lease{Max: oc.lease, For: oracleWindow / 8},
		}, monotonic)
		for g := range oracleCallers {
			wg.Go(func() {
				p := &pacer{r: rand.New(rand.NewPCG(seed, uint64(i*100+g))), limit: oc.limit}
				pause(t.Context(), time.Until(time.Unix(0, begin)))
				for ; ; p.n++ {
					if p.now = time.Now(); p.now.After(end) {
						return
					}
					if wait := oc.next(p); wait > 0 {
						pause(t.Context(), min(wait, time.Until(end)+time.Millisecond))
					}
					cost := 1 + p.r.IntN(oc.cost)
					w := told{Case: i, Cost: cost, Before: time.Now().UnixNano()}
					d, err := l.Decide(as("a"), cost)
					w.After = time.Now().UnixNano()
					if err != nil {
						t.Error(err)
						return
					}
					st := l.Stats()
					w.Allowed, w.Degraded, w.Strand = d.Allowed, d.Degraded, int(st.Leased)-int(st.LeaseHits)
					p.last = d
					mu.Lock()
					err = enc.Encode(w)
					mu.Unlock()
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	_ = out.Close()
}

// Every request of several processes is written down and replayed: no trailing
// window holds more than the limit, and nobody is refused while fewer are charged,
// what leases hold included.
func TestL01OracleOverProcesses(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	addr := testbed.SharedRedis(t).Addr()
	name := fmt.Sprint("oracle.", os.Getpid(), ".", namespaces.Add(1), ".")
	begin := time.Now().Add(time.Second).UnixNano()
	all := make([][][]told, len(oracleCases)) // by case and child
	for i := range all {
		all[i] = make([][]told, oracleChilds)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for child := range oracleChilds {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOracleChild$") //nolint:gosec // this very binary
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d", oracleEnv, addr, name, child, begin))
		cmd.ExtraFiles = []*os.File{w}
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		wg.Go(func() {
			defer func() { _ = r.Close() }()
			dec := gob.NewDecoder(r)
			for {
				var one told
				if err := dec.Decode(&one); err != nil {
					if !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					break
				}
				mu.Lock()
				all[one.Case][child] = append(all[one.Case][child], one)
				mu.Unlock()
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("child %d: %v\n%s", child, err, said.String())
			}
		})
	}
	wg.Wait()
	for i, oc := range oracleCases {
		t.Run(oc.name, func(t *testing.T) { replay(t, oc, all[i]) })
	}
}

func replay(t *testing.T, oc oracleCase, children [][]told) {
	var admitted []span
	var maybe, refused []told // what may have been charged
	for _, requests := range children {
		for _, w := range requests {
			switch {
			case w.Allowed && !w.Degraded:
				for range w.Cost {
					admitted = append(admitted, span{w.Before, w.After})
				}
				maybe = append(maybe, w)
			case w.Degraded:
				maybe = append(maybe, w)
			default:
				refused = append(refused, w)
			}
		}
	}
	t.Logf("%d admitted, %d refused", len(admitted), len(refused))
	if certainlyAbove(admitted, oc.limit, int64(oracleWindow)) {
		t.Errorf("more than %d in a window", oc.limit)
	}
	if len(admitted) < min(oc.limit, 100) || oc.limit < 1000 && len(refused) == 0 {
		t.Errorf("%d admitted, %d refused: nothing tested", len(admitted), len(refused))
	}
	late := int64(0) // a leased unit is charged as if it were spent when it expires
	if oc.lease > 1 {
		late = int64(oracleWindow / 8)
	}
	for _, r := range refused {
		charged := 0
		for _, m := range maybe {
			if m.After > r.Before-int64(oracleWindow)-late && m.Before <= r.After {
				charged += m.Cost
			}
		}
		for _, requests := range children {
			charged += strandedAt(requests, r.After, oc)
		}
		if charged+r.Cost <= oc.limit {
			t.Fatalf("refused at a cost of %d while at most %d of %d were charged", r.Cost, charged, oc.limit)
		}
	}
}

// strandedAt is the most that a child can have leased without spending it: what it
// told of the requests that ended by then, and one lease that it had not yet told of.
func strandedAt(requests []told, at int64, oc oracleCase) (n int) {
	if oc.lease == 1 {
		return 0
	}
	i, _ := slices.BinarySearchFunc(requests, at, func(w told, at int64) int { return int(min(max(w.After-at, -1), 1)) })
	for _, w := range requests[max(0, i-2*oracleCallers):min(len(requests), i+2*oracleCallers)] {
		n = max(n, w.Strand)
	}
	return n + oc.lease
}
