package resolver

import (
	"context"
	"slices"
	"sync"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
)

// maxAuthors bounds the sessions that one transaction is remembered to have
// written for. What it writes for more counts as written without a scope, which
// all must see.
const maxAuthors = 16

// authors are those whose statements have written in a transaction. A request
// may begin it on the bare *gorm.DB, and only its statements carry the context.
type authors struct {
	mu   sync.Mutex // guards the rest
	list []*sessions
	more bool
}

type authorsKey struct{ a *router }

// Begin implements hook.TxnObserver.
func (a *router) Begin(t *hook.Txn) { t.SetValue(authorsKey{a}, &authors{}) }

// Wrote implements hook.WriteObserver.
func (a *router) Wrote(ctx context.Context, t *hook.Txn, s *scope.Scope) {
	in := containerOf(optionsOf(ctx), s)
	by, _ := t.Value(authorsKey{a}).(*authors)
	if in == nil || by == nil { // by: that of an autocommit is its Context's
		return
	}
	by.mu.Lock()
	defer by.mu.Unlock()
	switch {
	case slices.Contains(by.list, in):
	case len(by.list) < maxAuthors:
		by.list = append(by.list, in)
	default:
		by.more = true
	}
}

// Ended implements hook.TxnObserver: the sessions must see what was committed, or
// may have been, and what they were shown in the transaction.
func (a *router) Ended(t *hook.Txn, outcome hook.TxnOutcome) {
	n := a.r.nodeOf(t.Node)
	if n != nil && !t.Foreign {
		n.home.ended(a, t, n, outcome)
		return
	}
	for _, home := range a.r.homes() { // it may have been anywhere
		home.ended(a, t, n, outcome)
	}
}

func (r *Resolver) ended(a *router, t *hook.Txn, n *node, outcome hook.TxnOutcome) {
	now := r.now()
	wrote := outcome != hook.RolledBack && t.Wrote()
	if wrote {
		for _, s := range r.authorsOf(a, t) {
			s.note(now)
			if t.Foreign || t.Autocommit && t.Pinned {
				s.suspect(t.Held, now)
			}
		}
	}
	if t.Autocommit || n == nil || n.home != r {
		return
	}
	if s := r.sessionOf(optionsOf(t.Context), scope.From(t.Context), wrote || r.remembers()); s != nil {
		s.saw(n, now, false)
	}
}

// authorsOf returns the sessions that a write is to be noted in: of who began
// the transaction, of whose statements wrote in it, and the process; without
// either, what all scopes see too.
func (r *Resolver) authorsOf(a *router, t *hook.Txn) []*session {
	in := append(make([]*session, 0, 4), &r.process)
	o := optionsOf(t.Context)
	if s := r.sessionOf(o, scope.From(t.Context), true); s != nil {
		in = append(in, s)
	}
	anonymous := o.sessions == nil && openScope(t.Context) == nil
	if by, _ := t.Value(authorsKey{a}).(*authors); by != nil {
		by.mu.Lock()
		defer by.mu.Unlock()
		for _, of := range by.list {
			in = append(in, of.of(r, true))
		}
		anonymous = anonymous && len(by.list) == 0 || by.more
	}
	if anonymous {
		in = append(in, &r.unscoped)
	}
	return in
}
