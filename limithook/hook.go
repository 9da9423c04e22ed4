package limithook

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/internal/sqltext"
)

// Limits is a [Limiter] as a plugin of GORM: it charges statements and refuses
// them with an [*Error] before anything is sent, a write before GORM opens its
// default transaction. A transaction in which a statement was refused is not
// aborted: the caller may go on, commit or roll back. SAVEPOINT, ROLLBACK TO,
// RELEASE, COMMIT, ROLLBACK and SET are never charged nor refused, nor is the
// release of advisory locks. BEGIN is no
// statement: a Transaction, and that of CreateInBatches, is open before its
// first statement is refused.
//
// A statement is charged once, also when it is retried on another node. One
// that GORM fails to build after it was admitted stays charged.
type Limits struct {
	cfg Config

	mu     sync.Mutex // guards the following
	db     *gorm.DB   // whom it serves
	hub    *hook.Hub
	remove func()
	closed bool

	limiter atomic.Pointer[Limiter]
}

var _ gorm.Plugin = (*Limits)(nil)

// New returns the plugin for db.Use. It starts nothing and cannot fail: faults
// of cfg are reported by Use.
func New(cfg Config) *Limits {
	p := &Limits{cfg: cfg}
	p.limiter.Store(idleLimiter(cfg))
	return p
}

// Name implements gorm.Plugin.
func (p *Limits) Name() string { return "infra:limits" }

// Initialize implements gorm.Plugin. A Limits serves one *gorm.DB.
func (p *Limits) Initialize(db *gorm.DB) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return errors.New("limithook: this plugin is closed: make a new one")
	case p.db != nil:
		return errors.New("limithook: this plugin is already used on a *gorm.DB: make another one, with another Name if they share a Redis")
	}
	l, err := NewLimiter(p.cfg)
	if err != nil {
		return err
	}
	if !l.off.Load() {
		l.changed = func() error { // there may be something to limit only now
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.closed {
				return nil
			}
			return p.register(l)
		}
		if p.hub, err = hook.Attach(db); err != nil {
			return errors.Join(err, l.Close())
		}
		if err := p.register(l); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	p.db = db
	p.limiter.Store(l)
	return nil
}

// register puts the limits into the way of statements, unless there is nothing
// to limit. p.mu is held.
func (p *Limits) register(l *Limiter) (err error) {
	if p.remove == nil && p.hub != nil && l.terms.Load().any {
		p.remove, err = p.hub.Register(&adapter{l})
	}
	return err
}

// SetLimits is [Limiter.SetLimits]; it is for use after Use.
func (p *Limits) SetLimits(perUser, global Limit) error {
	return p.Limiter().SetLimits(perUser, global)
}

// SetRule is [Limiter.SetRule]; it is for use after Use.
func (p *Limits) SetRule(name string, rate Limit) error { return p.Limiter().SetRule(name, rate) }

// Limiter returns what decides, for anything else that is to be held to the
// same limits. It is never nil; before Use and after Close it admits everything.
func (p *Limits) Limiter() *Limiter { return p.limiter.Load() }

// Stats returns the counters of [Limits.Limiter].
func (p *Limits) Stats() Stats { return p.Limiter().Stats() }

// Close takes the limits off the *gorm.DB and closes the limiter, see
// [Limiter.Close]. Statements go on, unlimited. It may be called more than once.
func (p *Limits) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.remove != nil {
		p.remove()
	}
	return p.Limiter().Close()
}

// adapter is what the hook layer knows of the limits.
type adapter struct{ *Limiter }

var (
	_ hook.Gate    = (*adapter)(nil)
	_ hook.Charger = (*adapter)(nil)
	_ hook.Meter   = (*adapter)(nil)
)

// Gate implements hook.Gate: for writes, which do not come to Charge, and for
// reads where those answered from a cache are charged too.
func (a *adapter) Gate(ctx context.Context, r *hook.Record) error {
	switch r.Chain {
	case hook.Create, hook.Update, hook.Delete, hook.Raw:
	default:
		if a.cfg.Count != AllStatements {
			return nil
		}
	}
	return a.charge(ctx, r)
}

// Charge implements hook.Charger: for reads that go to a database. A refresh
// has passed no gate.
func (a *adapter) Charge(ctx context.Context, r *hook.Record) error {
	if a.cfg.Count == AllStatements && !refreshes(r) {
		return nil
	}
	return a.charge(ctx, r)
}

// refreshes reports whether the plugin runs the statement of its own accord. A
// flight that runs for a waiting caller, whose record is the observed one, is
// charged as the caller's.
func refreshes(r *hook.Record) bool { return r.Background && !r.Quiet }

func (a *adapter) charge(ctx context.Context, r *hook.Record) error {
	if neverRefused(r.Text) {
		return nil
	}
	cost := 1
	if a.cfg.Cost != nil {
		cost = a.cfg.Cost(ctx, statement(r))
		if cost <= 0 {
			return nil
		}
	}
	s := a.subject(ctx)
	if refreshes(r) && !s.bypass {
		s = everybody // it serves no single user
	}
	var d Decision
	var err error
	if a.terms.Load().ruled {
		st := statement(r)
		err = a.decide(ctx, s, &st, cost, &d)
	} else {
		err = a.decide(ctx, s, nil, cost, &d)
	}
	r.Waited += d.Waited
	if err != nil {
		return err
	}
	if r.Scope != nil && d.Limit > 0 && !refreshes(r) && !d.quiet {
		lastSlot.Get(r.Scope).set(d)
	}
	if d.Allowed {
		return nil
	}
	return a.refusal(s, d)
}

// neverRefused reports whether text only ends or marks what has begun: a caller
// at the limit must be able to roll back, and to give up an advisory lock that its
// session would keep.
func neverRefused(text *sqltext.Statement) bool {
	if text == nil || text.Multiple {
		return false
	}
	switch text.Operation {
	case sqltext.Savepoint, sqltext.RollbackTo, sqltext.Release, sqltext.Commit, sqltext.Rollback, sqltext.Set:
		return true
	case sqltext.Select:
		return len(text.Functions) > 0 && len(text.Reads)+len(text.Writes) == 0 && !slices.ContainsFunc(text.Functions, func(f string) bool {
			return f != "pg_advisory_unlock" && f != "pg_advisory_unlock_shared" && f != "pg_advisory_unlock_all"
		})
	}
	return false
}

// Statement is what [Config.Cost] may know of a statement.
type Statement struct {
	// Table is what the statement is about, as GORM or the SQL names it.
	Table string
	// SQL is the text. It is empty for GORM's own Create, Update and Delete,
	// which are charged before they are built.
	SQL string
	// Write says that rows or the schema may change.
	Write bool
}

func statement(r *hook.Record) Statement {
	return Statement{Table: r.Table(), SQL: r.SQL, Write: r.Access == hook.Write}
}

// last is the decision on a scope's latest statement.
type last struct {
	mu       sync.Mutex // guards decision
	decision Decision
}

var lastSlot = scope.NewSlot(func(*scope.Scope) *last { return &last{} })

func (l *last) set(d Decision) {
	l.mu.Lock()
	l.decision = d
	l.mu.Unlock()
}

// LastDecision returns the decision on the latest statement of a scope that a
// limit applied to; ok is false when there was none. It is for the plugin that
// contains this package, which opens the scopes; those who use the package alone
// have the [*Error] of a refused statement, and [Limiter.Info].
func LastDecision(s *scope.Scope) (d Decision, ok bool) {
	l := lastSlot.Peek(s)
	if l == nil {
		return Decision{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.decision, true
}
