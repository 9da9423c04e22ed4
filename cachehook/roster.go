package cachehook

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// roster says of which tables results may be cached, by any instance. A write of
// a table that is not in it need not tell Redis.
//
// An instance may cache a table only once it is in the roster and every instance
// that may leave out telling has acknowledged it. Who wants to leave out telling
// enlists, again and again, with the roster that it knows; it acknowledges a new
// table only when none of its own writes that left it out is still under way. So
// a fill never begins while a write is about to commit that will not be told. The
// roster names the database's schema too: see schema.go.
//
// Everything counts for rosterLease from the sending of the question. An instance
// that dies stays enlisted for as long as its marks would stand, and is waited for.
// A roster that Redis has lost is made anew, and used when every lease of before
// has run out; then what depends on its tables gets new stamps first.
type roster struct {
	ask    func(ctx context.Context, q rosterQuestion) (rosterAnswer, error)
	leave  func(ctx context.Context) // takes the instance off the list
	bump   func(ctx context.Context, tags []string) error
	cellOf func(tag string) *cell
	now    clock
	lease  time.Duration

	useUntil  atomic.Int64  // on the clock: what is admitted may be used
	admission atomic.Uint32 // a cell is admitted while it carries this number

	settled chan struct{} // closed when nobody can be left of an earlier roster
	once    sync.Once
	kicked  chan struct{} // has one slot

	mu        sync.Mutex          // guards the rest
	known     map[string]struct{} // in the roster, as far as this instance knows; only grows
	wants     map[string]want     // what this instance caches
	token     string              // of the roster that known holds all of
	born      string
	skipUntil int64 // on the clock: the instance is enlisted
	lost      bool  // there was an earlier roster
	breaks    int   // how often what was left out has become uncertain
	leftOut   map[*omission]struct{}
	changed   chan struct{} // closed at each answer
	held      bool          // an omission keeps this instance from acknowledging
	schema    rosterSchema
}

// want is a table that this instance caches.
type want struct {
	since int64 // on the clock
	stale bool  // it needs new stamps first
}

const (
	rosterLease = time.Second
	rosterEvery = rosterLease / 5
	rosterHurry = rosterEvery / 8 // while somebody is waited for
	// rosterSettle is how old a roster must be: leases of an earlier one have
	// run out, with a margin for Redis' clock.
	rosterSettle = rosterLease + rosterLease/4
)

// rosterQuestion is what an instance says of itself.
type rosterQuestion struct {
	acknowledged string   // token of a roster that all its writes go by, or ""
	tags         []string // that it caches
	schema       stamp    // that the roster shall name, or zero
	replaces     stamp    // if it names this one
	lost         bool     // it has known an earlier roster
}

// rosterAnswer is the roster.
type rosterAnswer struct {
	born, token string
	enlisted    bool     // this instance may leave out telling
	pending     bool     // somebody has not acknowledged yet, or the roster is too young
	settled     bool     // it is not too young
	added       []string // of the question's tags those that were not in it
	all         []string // its tags, unless the question's token was the present one
	schema      stamp    // that it names, or zero
}

func newRoster(now clock) *roster {
	r := &roster{
		now: now, lease: rosterLease, settled: make(chan struct{}), kicked: make(chan struct{}, 1), changed: make(chan struct{}),
		known: make(map[string]struct{}), wants: make(map[string]want), leftOut: make(map[*omission]struct{}),
	}
	r.admission.Store(1)
	return r
}

// admits reports whether results of all cells may be served and filled now.
func (r *roster) admits(cells []*cell, now int64) bool {
	if now >= r.useUntil.Load() {
		return false
	}
	n := r.admission.Load()
	for _, c := range cells {
		if c.listed && c.admitted.Load() != n {
			return false
		}
	}
	return true
}

// enroll asks for what the cells need, and reports whether it is admitted. It waits
// until patience has passed since somebody first asked.
func (r *roster) enroll(ctx context.Context, cells []*cell, patience time.Duration) bool {
	now := r.now()
	left := patience
	r.mu.Lock()
	for _, c := range cells {
		if !c.listed {
			continue
		}
		w, wanted := r.wants[c.tag]
		if !wanted {
			w.since = now
			r.wants[c.tag] = w
			r.known[c.tag] = struct{}{}
			r.kick()
		}
		left = min(left, time.Duration(w.since-now)+patience)
	}
	r.mu.Unlock()
	if left <= 0 {
		return false
	}
	return r.wait(ctx, left, func() bool { return r.admits(cells, r.now()) })
}

// wait waits until ok, which may change with each answer.
func (r *roster) wait(ctx context.Context, left time.Duration, ok func() bool) bool {
	if left <= 0 {
		return ok()
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if ok() {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (r *roster) kick() {
	select {
	case r.kicked <- struct{}{}:
	default:
	}
}

// run keeps the roster until ctx ends.
func (r *roster) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			r.mu.Lock()
			idle := len(r.leftOut) == 0
			r.skipUntil = 0
			r.mu.Unlock()
			if idle {
				r.leave(context.WithoutCancel(ctx))
			}
			return
		case <-timer.C:
		case <-r.kicked:
		}
		pause := rosterEvery
		if r.renew(ctx) {
			pause = rosterHurry
		}
		timer.Reset(pause)
	}
}

// renew asks, and again at once where it has learnt something: another instance's
// reads wait until it acknowledges that. It reports whether it shall be asked soon
// again.
func (r *roster) renew(ctx context.Context) (soon bool) {
	learnt, soon := r.question(ctx)
	if learnt {
		learnt, soon = r.question(ctx)
	}
	return learnt || soon
}

// question asks once. It reports whether there is something to acknowledge, and
// whether this instance waits for others.
func (r *roster) question(ctx context.Context) (learnt, waits bool) {
	r.mu.Lock()
	q := rosterQuestion{acknowledged: r.token, lost: r.lost}
	q.schema, q.replaces = r.schema.proposes()
	r.letGoLocked(r.now())
	if r.held = r.underWayLocked(); r.held {
		q.acknowledged = ""
	}
	for tag := range r.wants {
		q.tags = append(q.tags, tag)
	}
	r.mu.Unlock()
	slices.Sort(q.tags)
	sent := r.now()
	a, err := r.ask(ctx, q)
	if err != nil {
		return false, false
	}
	fresh, learnt, waits := r.take(q, a, sent)
	if len(fresh) > 0 {
		waits = r.admit(ctx, fresh, a.born) || waits
	}
	return learnt, waits
}

// take notes an answer. It returns the tags that everybody has acknowledged and
// this instance does not use yet, whether the next question acknowledges more than
// this one did, and whether others have yet to acknowledge what this instance wants.
func (r *roster) take(q rosterQuestion, a rosterAnswer, sent int64) (fresh []string, learnt, waits bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		close(r.changed)
		r.changed = make(chan struct{})
	}()
	lost := r.born != "" && r.born != a.born
	if lost {
		r.lost = true
		r.breaks++
		r.expelLocked()
	}
	r.born = a.born
	for _, tag := range a.added {
		if r.cellOf(tag).admitted.Load() == r.admission.Load() {
			r.expelLocked() // the roster has lost what it had
		}
		r.staleLocked(tag, true)
	}
	for _, tag := range a.all {
		r.known[tag] = struct{}{}
	}
	current := q.acknowledged == a.token
	r.token = a.token // known holds all of it now
	switch {
	case !a.enlisted:
		r.skipUntil = 0
	case sent >= r.skipUntil:
		r.breaks++
		fallthrough
	default:
		r.skipUntil = sent + int64(r.lease)
	}
	r.useUntil.Store(sent + int64(r.lease))
	if a.settled {
		r.once.Do(func() { close(r.settled) })
	}
	n := r.admission.Load()
	for _, tag := range q.tags {
		if r.cellOf(tag).admitted.Load() != n {
			fresh = append(fresh, tag)
		}
	}
	learnt = !current && !r.held
	r.schema.name(a.schema, sent)
	// With the roster Redis may have lost marks, and this question did not ask yet
	// whether those have run out.
	acknowledged := !a.pending && !lost && !r.underWayLocked()
	waits = r.schema.admit(acknowledged)
	if !acknowledged {
		return nil, learnt, waits || len(fresh) > 0
	}
	return fresh, learnt, waits
}

// expelLocked takes back what was admitted: it may have been written untold.
func (r *roster) expelLocked() {
	r.admission.Add(1)
	r.schema.admitted.Store(nil)
	for tag := range r.wants {
		r.staleLocked(tag, true)
	}
}

func (r *roster) staleLocked(tag string, stale bool) {
	w := r.wants[tag]
	w.stale = stale
	r.wants[tag] = w
}

// admit lets the tags be used, with new stamps where their old ones may be from
// before a write that nobody was told of. It reports whether it has to be tried
// again.
func (r *roster) admit(ctx context.Context, tags []string, born string) (again bool) {
	var stale []string
	r.mu.Lock()
	n := r.admission.Load()
	for _, tag := range tags {
		if r.wants[tag].stale {
			stale = append(stale, tag)
		}
	}
	r.mu.Unlock()
	if len(stale) > 0 && r.bump(ctx, stale) != nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.born != born || r.admission.Load() != n {
		return true
	}
	for _, tag := range stale {
		r.staleLocked(tag, false)
	}
	for _, tag := range tags {
		r.cellOf(tag).admitted.Store(n)
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return false
}
