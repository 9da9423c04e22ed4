package resolver

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
)

// sessions is those of one scope or context, one for each Resolver: what was
// written to one database says nothing of another.
type sessions struct {
	owner atomic.Pointer[Resolver] // of first; most programs have but one
	first session

	arrived atomic.Int64 // when a token came last into a context without a scope

	mu   sync.Mutex // guards more
	more map[*Resolver]*session
}

var slot = scope.NewSlot(func(*scope.Scope) *sessions { return &sessions{} })

// of returns r's session; nil if it is not to be made.
func (in *sessions) of(r *Resolver, create bool) *session {
	switch owner := in.owner.Load(); {
	case owner == r:
		return &in.first
	case owner == nil && !create:
		return nil
	case owner == nil && in.owner.CompareAndSwap(nil, r):
		return &in.first
	case in.owner.Load() == r:
		return &in.first
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	own := in.more[r]
	if own == nil && create {
		if in.more == nil {
			in.more = make(map[*Resolver]*session, 1)
		}
		own = &session{}
		in.more[r] = own
	}
	return own
}

// sessionOf returns the session of work whose context has the options o and the
// scope s: the one that a token began, that of the scope, or nil, for which the
// process stands. One that has done nothing is nil too, unless it is to be made.
func (r *Resolver) sessionOf(o *options, s *scope.Scope, create bool) *session {
	switch {
	case o.sessions != nil:
		return o.sessions.of(r, create)
	case s == nil || !create && slot.Peek(s) == nil:
		return nil
	}
	return slot.Get(s).of(r, create)
}

// containerOf is where sessionOf looks; nil: the process stands for it.
func containerOf(o *options, s *scope.Scope) *sessions {
	if o.sessions != nil || s == nil {
		return o.sessions
	}
	return slot.Get(s)
}

// sessionAt is sessionOf for a context. It is made where the resolver has use for
// what it notes.
func (r *Resolver) sessionAt(ctx context.Context) *session {
	return r.sessionOf(optionsOf(ctx), openScope(ctx), true)
}

// Observe implements hook.Observer: what a session was shown binds its later
// reads.
func (a *router) Observe(_ context.Context, rec *hook.Record) {
	if rec.Outcome != hook.Refused {
		a.r.traced(rec)
	}
	r := a.homeOf(rec)
	r.heedFailure(rec)
	if rec.Where == hook.Pinned {
		for _, home := range a.r.homes() {
			home.settleUnseen(rec)
		}
	}
	if rec.Background || rec.Outcome == hook.Refused || !r.remembers() {
		return
	}
	s, _ := rec.Session.(*session)
	if s == nil {
		if s = r.sessionOf(optionsOf(rec.Context), rec.Scope, true); s == nil {
			return
		}
	}
	switch {
	case rec.Outcome == hook.Database && rec.Node == nil: // never sent, or to a pool of somebody else
	case rec.Outcome == hook.Database:
		if n := r.nodeOf(rec.Node); n != nil {
			s.saw(n, r.now(), false)
		}
	case rec.Err == nil:
		at := r.now()
		if rec.Shown != 0 {
			at = min(at, int64(rec.Shown))
		}
		s.recalled(at)
	}
}

// homeOf finds whose session a statement tells of.
func (a *router) homeOf(rec *hook.Record) *Resolver {
	if len(a.r.groups.far) == 0 {
		return a.r
	}
	if n := a.r.nodeOf(rec.Node); n != nil {
		return n.home
	}
	if p, err := a.r.belongs(rec, rec.Hint()); err == nil { // served from the cache
		return p.r
	}
	return a.r
}

// remembers reports whether anything will be asked of what sessions were shown.
func (r *Resolver) remembers() bool { return len(r.replicas()) > 0 || len(r.cfg.Session.Key) > 0 }

// heed makes a read ask for what its session has to see.
func (r *Resolver) heed(q *question, s *session) {
	q.session = s
	if s == nil {
		s = &r.process
	} else {
		shown, seen, h := s.look(r.at(q))
		switch {
		case r.off&monotonicRule == 0:
			q.shown, q.seen = shown, seen
		case h != nil: // what was shown elsewhere is a token's
			q.shown, q.seen = h.shown, h.shown.at
		}
		if h != nil && r.off&tokenRule == 0 {
			r.heedToken(q, h)
		}
	}
	if r.off&tokenRule == 0 {
		now := r.at(q)
		q.wrote = s.floor(now)
		if q.session != nil {
			q.scoped = q.wrote > 0
			q.wrote = max(q.wrote, r.unscoped.floor(now))
		}
	}
}

// bind notes the node of a statement in its session. What was not asked of the
// session, because it needs the primary, matters here when its rows are shown
// before it ends.
func (r *Resolver) bind(rec *hook.Record, q *question, n *node) {
	if rec.Background {
		return
	}
	rows := rowsOf(rec)
	if q.session == nil && rows {
		q.session = r.sessionOf(optionsOf(rec.Context), rec.Scope, r.remembers())
	}
	if q.session == nil {
		return
	}
	rec.Session = q.session
	q.session.choose(n, n.run.Load(), q.shown, r.at(q), rows)
}

// rowsOf reports whether the caller of a statement is shown rows before it ends.
func rowsOf(rec *hook.Record) bool { return rec.Chain == hook.Row || rec.Chain == hook.Direct }
