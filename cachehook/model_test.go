package cachehook

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// The trails are the shortest ways by which spin breaks the promises when it may
// leave out one safeguard of model/cache.pml; `make trails` writes them. Here the
// same steps are taken in the same order by the real functions on a real Redis.
// At the step where the model without its safeguard serves what is too old, they
// must not.
func TestModelTrailsAreRefused(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/trails/*.txt")
	must(t, err)
	if len(paths) < 21 {
		t.Fatalf("%d trails", len(paths))
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			must(t, err)
			newWorld(t, string(text)).run()
		})
	}
}

// world is what the model's steps act on.
type world struct {
	t     *testing.T
	lines []string
	rdb   redis.UniversalClient
	tags  []string
	sets  map[string]bool // the trail's macros

	primary, replica, late int64
	at                     [2]*place
	writers                [2]*scribe
	readers                [3]*visitor
	tooOld                 int // what the model served that it must not have
	sent                   *commands
}

// place is an instance of the model: a cache, without a database, whose channel
// is moved by hand.
type place struct {
	*Cache
	own, shown int64
	channel    string // "", "cut" or "confirming"
	unheard    map[string]bool
	since      int64 // 1 + the commits when the oldest unheard message was published
	primary    *int64
}

// PositionAfter is the router's: the lowest position that may be told.
func (p *place) PositionAfter(context.Context, time.Time) (uint64, error) {
	return uint64(atomic.LoadInt64(p.primary)) + 1, nil
}

type scribe struct {
	at    *place
	tag   string
	name  string
	cells []*cell
}

// gate is the store of an instance: it keeps each answer until the reader may
// have it.
type gate struct {
	*redisStore
	asking atomic.Pointer[visitor]
}

func (g *gate) lookup(ctx context.Context, tags []string, entry string) (answer, error) {
	v := g.asking.Load()
	v.asks <- struct{}{}
	<-v.send
	a, err := v.rest(ctx, g.redisStore, tags, entry)
	v.answered <- struct{}{}
	<-v.receive
	return a, err
}

// visitor is a reader.
type visitor struct {
	at   *place
	need int64
	q    query

	asks, send, answered, receive chan struct{}
	found                         chan standing
	stage                         string  // "", asking, answered, found, read, flown
	row                           *answer // to the question for the row's tag
	standing                      standing
	flight                        *flight
	follows                       bool
	value                         int64
	put                           func()
}

func newWorld(t *testing.T, text string) *world {
	rdb, name := client(t)
	w := &world{t: t, rdb: rdb, tags: []string{tableTag("a")}, sets: make(map[string]bool)}
	w.lines = strings.Split(strings.TrimSpace(text), "\n")
	for macro := range strings.FieldsSeq(strings.TrimPrefix(w.lines[0], "#")) {
		w.sets[macro] = true
	}
	switch {
	case w.sets["TAGS=2"]:
		w.tags = append(w.tags, tableTag("b"))
	case w.sets["ROWS"]:
		w.tags = []string{rowTag(w.tags[0], "1"), wholeTag(w.tags[0])}
	}
	w.sent = recordCommands(t, rdb)
	for i := range w.at {
		c := New(Config{Redis: rdb, Name: name, Logger: quiet, Timeout: 10 * time.Second})
		t.Cleanup(func() { must(t, c.Close()) })
		c.roster = nil // everything may be cached
		p := &place{Cache: c, unheard: make(map[string]bool), primary: &w.primary}
		c.floors.find = func() positioner { return p }
		silent := *c.store.(*redisStore)
		silent.channel = "" // messages are delivered by hand
		c.store = &gate{redisStore: &silent}
		w.at[i] = p
	}
	home := 1
	if w.sets["HOME=0"] {
		home = 0
	}
	for i, p := range []*place{w.at[0], w.at[home]} {
		w.writers[i] = &scribe{at: p, tag: w.tags[i%len(w.tags)], name: fmt.Sprint("w", i)}
	}
	for i := range w.readers {
		w.readers[i] = w.visitor(w.at[min(i, 1)])
	}
	w.warm()
	return w
}

func (w *world) visitor(p *place) *visitor {
	v := &visitor{at: p}
	v.q = query{key: []byte("k"), tags: w.tags, kind: kindBlob, tally: &tally{}}
	for _, tag := range w.tags {
		v.q.cells = append(v.q.cells, p.mirror.cell(tag, p.pins(tag)))
	}
	return v
}

// warm makes the beginning: version 0 everywhere, and everything known.
func (w *world) warm() {
	a, err := w.at[0].store.(*gate).redisStore.lookup(context.Background(), w.tags, "")
	must(w.t, err)
	for _, p := range w.at {
		v := w.visitor(p)
		for i, cell := range v.q.cells {
			p.mirror.learn(cell, p.mirror.ask(cell), a.stamps[i])
		}
		p.floors.floor(v.q.cells, a.stamps)
		w.sampled(p)
		_, put := p.fill(&v.q, a.stamps, []byte("0"), 1, p.now(), &payload{kind: kindBlob, blob: []byte("0")})
		put()
	}
}

// sampled waits until the positions that are wanted are known.
func (w *world) sampled(p *place) {
	eventually(w.t, "the position is known", time.Minute, func() bool {
		p.floors.mu.Lock()
		defer p.floors.mu.Unlock()
		return !p.floors.running
	})
}

// prove lets the channel be as healthy as the best order of pings makes it.
func (w *world) prove(p *place) {
	p.Cache.channel.proof.Store(0)
	if p.channel == "" && len(p.unheard) == 0 || p.since > w.late {
		p.Cache.channel.proof.Store(p.now())
	}
}

func (w *world) run() {
	for n, line := range w.lines[1:] {
		f := strings.Fields(line)
		var i int
		if len(f) > 1 {
			_, _ = fmt.Sscanf(f[1][1:], "%d", &i)
		}
		switch {
		case len(f) > 1 && f[1][0] == 'w':
			w.write(w.writers[i], f[0])
		case len(f) > 1 && f[1][0] == 'r':
			w.read(w.readers[i], f)
		case len(f) > 1 && f[1][0] == 'i':
			w.deliver(w.at[i], f[0])
		default:
			w.pass(f[0])
		}
		if w.t.Failed() {
			w.t.Fatalf("in step %d: %s", n+1, line)
		}
	}
	for _, v := range w.readers {
		w.finish(v)
	}
	equal(w.t, "steps at which the model served what is too old", w.tooOld, 1)
}

// pass is what happens by itself.
func (w *world) pass(step string) {
	switch step {
	case "lease":
		w.late++
	case "replay":
		w.replica++
	case "evict":
		w.evict()
	default:
		w.t.Fatalf("unknown step %q", step)
	}
}

func (w *world) evict() {
	must(w.t, w.rdb.Del(context.Background(), w.writers[0].key()).Err())
}

func (s *scribe) silent() *redisStore { return s.at.store.(*gate).redisStore }

func (s *scribe) key() string { return s.silent().tagKey(s.tag) }

func (w *world) write(s *scribe, step string) {
	ctx := context.Background()
	tags := []string{s.tag}
	switch step {
	case "hold":
		s.cells = s.at.hold(tags)
	case "mark":
		must(w.t, errOf(s.silent().mark(ctx, tags, s.name, false)))
	case "publish":
		w.publish(s.tag)
	case "COMMIT":
		w.unmarkedCommit(s)
		atomic.AddInt64(&w.primary, 1)
		s.at.own = w.primary
	case "bump":
		must(w.t, errOf(s.silent().bump(ctx, tags, s.name, false)))
		w.sent.keep(s.name, anyServer.bump, s.key())
	case "repeat":
		w.sent.arriveAgain(w.t, s.name)
	case "unmark":
		must(w.t, s.silent().unmark(ctx, tags, s.name))
	case "release":
		s.at.release(s.cells, true)
	case "runOut":
		if !w.sets["NO_RENEW"] { // a living writer renews it
			must(w.t, w.rdb.HSet(ctx, s.key(), "m:"+s.name, "1").Err())
		}
	default:
		w.t.Fatalf("unknown step %q", step)
	}
}

// unmarkedCommit does what the trail has left out: no COMMIT without a mark that
// was published.
func (w *world) unmarkedCommit(s *scribe) {
	if w.sets["NO_HOLD"] && s.cells == nil {
		w.write(s, "hold")
	}
	if w.sets["NO_MARK"] {
		w.write(s, "mark")
	}
	if w.sets["NO_MARK"] || w.sets["MARK_NOT_PUBLISHED"] {
		w.write(s, "publish")
	}
}

func (w *world) publish(tag string) {
	for _, p := range w.at {
		if p.channel == "cut" {
			continue
		}
		if p.channel == "" && len(p.unheard) == 0 {
			p.since = 1 + w.primary
		}
		p.unheard[tag] = true
	}
}

func (w *world) deliver(p *place, step string) {
	switch step {
	case "heard":
		for tag := range p.unheard {
			p.heard(tag)
		}
		clear(p.unheard)
		p.since = 0
	case "cut":
		if len(p.unheard) == 0 {
			p.since = 1 + w.primary
		}
		p.channel = "cut"
	case "subscribe":
		p.channel = "confirming"
		clear(p.unheard)
	case "confirmed":
		p.channel, p.since = "", 0
		p.Cache.channel.confirmed()
	default:
		w.t.Fatalf("unknown step %q", step)
	}
}
