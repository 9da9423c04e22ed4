package cachehook

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// flights lets one of several callers that miss the same key under the same
// stamps do the work. The stamps are part of a flight's name: a reader that
// starts after a write has other stamps, and never joins a flight from before.
type flights struct {
	mu     sync.Mutex // guards flying, stopped, and Add of running against Wait
	flying map[string]*flight

	stopped bool
	running sync.WaitGroup // flights

	next   chan journey  // to an idle pilot
	quit   chan struct{} // closed when idle pilots have to go
	idle   atomic.Int32
	pilots sync.WaitGroup

	waiting atomic.Int64 // callers that wait for another's flight
}

// flight is one piece of work and its outcome, which may be read after done.
type flight struct {
	done chan struct{} // nil as long as nobody waits; it is made under flights.mu
	end  func()        // ends the work before its time, or nil; guarded by flights.mu
	over bool          // it has landed; guarded by flights.mu
	landing
}

// landing is how a flight ended.
type landing struct {
	verdict  verdict
	entry    *entry // landed
	fromL2   bool   // landed: the entry was found in L2
	err      error  // failed and refused; alone: the leader's own
	panicked any    // alone: what the leader's work panicked with
}

type verdict uint8

const (
	// alone: nothing came of it that others could use; each goes its own way,
	// as without a cache. It is the zero value, and what Goexit leaves.
	alone verdict = iota
	landed
	// failed: the database answered with an error, which everybody would get.
	failed
	// refused: the leader was not admitted. That is its own affair: one of the
	// others leads next.
	refused
)

// join returns the flight of that name, and whether the caller leads it and so
// has to start it.
func (g *flights) join(name string) (f *flight, leads bool) {
	return g.joinOr(name, &flight{done: make(chan struct{})})
}

// joinOr is join for a caller that leads own if it leads.
func (g *flights) joinOr(name string, own *flight) (f *flight, leads bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.flying[name]; f != nil {
		return f, false
	}
	f = own
	if g.stopped {
		f.over = true // alone
		return f, false
	}
	if g.flying == nil {
		g.flying = make(map[string]*flight)
		g.next, g.quit = make(chan journey), make(chan struct{})
	}
	g.flying[name] = f
	g.running.Add(1)
	return f, true
}

// journey is what a pilot is to do: a flight, or something that nobody waits for.
type journey struct {
	name  string
	of    *flight
	work  func() (landing, func())
	chore func()
}

// maxIdlePilots is how many goroutines wait for the next flight.
const maxIdlePilots = 16

// start does the work on another goroutine, so that it outlives a caller that loses
// patience. A panic or Goexit in work ends the flight, not the process. What work
// returns besides is called when everybody has been told.
//
// The goroutine is one that has done such work, if one is idle: its stack has grown
// to what database/sql and a driver need, and to grow a new one takes as long as all
// else that the cache does for a miss.
func (g *flights) start(name string, f *flight, work func() (landing, func())) {
	g.send(journey{name: name, of: f, work: work})
}

func (g *flights) send(j journey) {
	select {
	case g.next <- j:
	default:
		g.pilots.Go(func() { g.pilot(j) })
	}
}

// pilot flies one flight after the other until it is one idle pilot too many.
func (g *flights) pilot(j journey) {
	for {
		g.fly(j)
		if g.idle.Add(1) > maxIdlePilots {
			g.idle.Add(-1)
			return
		}
		select {
		case j = <-g.next:
			g.idle.Add(-1)
		case <-g.quit:
			return
		}
	}
}

func (g *flights) fly(j journey) {
	defer g.running.Done()
	if j.chore != nil {
		j.chore()
		return
	}
	var after func()
	defer func() {
		if after != nil {
			after()
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			j.of.landing = landing{panicked: p}
		}
		g.land(j.name, j.of)
	}()
	j.of.landing, after = j.work()
}

// land lets those who wait for the flight read how it ended.
func (g *flights) land(name string, f *flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(name, f)
	f.over = true
	if f.done != nil {
		close(f.done)
	}
}

// forget lets nobody join the flight any more: who comes next leads another.
func (g *flights) forget(name string, f *flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(name, f)
}

func (g *flights) forgetLocked(name string, f *flight) {
	if g.flying[name] == f {
		delete(g.flying, name)
	}
}

// landed returns what is closed when the flight has landed.
func (g *flights) landed(f *flight) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.over {
		return closed
	}
	if f.done == nil {
		f.done = make(chan struct{})
	}
	return f.done
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// short does work that is bounded on the leader's own goroutine. The flight has landed
// if work reports so, or panics or ends the goroutine, and has to be started else.
func (g *flights) short(name string, f *flight, work func() (landing, bool)) (over bool) {
	over = true // unless work returns
	defer func() {
		if over {
			g.land(name, f)
			g.running.Done()
		}
	}()
	f.landing, over = work()
	return over
}

// onSpot does work on the leader's own goroutine that only its caller bounds, so that
// stop does not wait for it. The flight has landed if work reports so, or panics or
// ends the goroutine; else it is to be started, if [flights.resume] lets it, or landed.
func (g *flights) onSpot(name string, f *flight, work func() (landing, bool)) (over bool) {
	g.running.Done()
	over = true // unless work returns
	defer func() {
		if over {
			g.land(name, f)
		}
	}()
	f.landing, over = work()
	return over
}

// resume counts a flight that was on the spot among those that stop waits for. It
// reports false when none may start any more.
func (g *flights) resume() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopped {
		g.running.Add(1)
	}
	return !g.stopped
}

// later does, on another goroutine, what a flight on the spot has left to do. When
// all flights are ended it is not done.
func (g *flights) later(do func()) {
	if g.resume() {
		g.send(journey{chore: do})
	}
}

// endBy says how the work is ended when all flights are; nil: it is not.
func (g *flights) endBy(f *flight, end func()) {
	g.mu.Lock()
	f.end = end
	stopped := g.stopped
	g.mu.Unlock()
	if stopped && end != nil {
		end()
	}
}

// wait waits for a flight to end. It reports false when ctx ends first, or when
// patience does; 0: it does not.
func (g *flights) wait(ctx context.Context, f *flight, patience time.Duration) bool {
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	var late <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-g.landed(f):
		return true
	case <-late:
	case <-ctx.Done():
	}
	return false
}

// stop lets no flight start any more, ends those under way that can be ended, and
// waits for them.
func (g *flights) stop() {
	g.mu.Lock()
	g.stopped = true
	for _, f := range g.flying {
		if f.end != nil {
			f.end()
		}
	}
	if g.quit != nil {
		close(g.quit)
	}
	g.mu.Unlock()
	g.running.Wait()
	g.pilots.Wait()
}
