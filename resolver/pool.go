package resolver

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	keepEvery   = time.Second      // between two looks at a pool
	warmTimeout = 10 * time.Second // for one round of opening connections
)

// applyPool puts the configured bounds on a node's pool.
func (r *Resolver) applyPool(n *node, db *sql.DB) {
	limit := 0
	if n.given {
		limit = db.Stats().MaxOpenConnections
	}
	if n.given && len(r.replicas()) == 0 && r.cfg.Pool == (Pool{}) && r.root.maxIdle == 0 {
		// Nobody spoke of pools: this one stays as it is, but what its maker set
		// bounds the background too.
		n.gate.bound(limit, 0)
		n.most.Store(int64(limit))
		return
	}
	p := r.cfg.Pool.withDefaults(r.hasLSN(), limit)
	n.min = p.Min
	n.gate.bound(p.Max, p.Reserve)
	n.most.Store(int64(p.Max))
	if p.Max > 0 {
		db.SetMaxOpenConns(p.Max)
		db.SetMaxIdleConns(p.Max) // IdleTimeout takes what is too much, and not each lull
		n.idle = p.Max
		if idle := r.root.maxIdle; idle > 0 {
			n.idle, n.min = min(n.idle, idle), min(n.min, idle)
			db.SetMaxIdleConns(n.idle)
		}
	}
	if p.IdleTimeout != 0 {
		db.SetConnMaxIdleTime(max(p.IdleTimeout, 0))
	}
	if p.MaxLifetime != 0 {
		n.lifetime = jittered(max(p.MaxLifetime, 0))
		db.SetConnMaxLifetime(n.lifetime)
	}
}

// flush closes the idle connections of a node that was lost and answers again.
// They died with it, and each would cost the node another ejection.
func (r *Resolver) flush(n *node) {
	if db := n.db.Load(); db != nil && n.idle > 0 {
		db.SetMaxIdleConns(-1)
		db.SetMaxIdleConns(n.idle)
	}
}

// renewEvery is how often connections from before a renewal are looked for in the
// first time after it, when most of them come back.
const (
	renewEvery = 20 * time.Millisecond
	mostRenew  = 2 * time.Second
)

// renew has the present connections of n replaced: idle ones are closed, those in
// use when they are given back.
func (r *Resolver) renew(n *node) {
	n.renewing.Store(r.now())
	r.flush(n)
	if db := n.db.Load(); db != nil {
		r.expire(n, db)
	}
	select {
	case n.renewed <- struct{}{}:
	default:
	}
}

// expire makes the pool close what is older than a renewal, however long it was in
// use: by the lifetime of connections, which grows with the time since then until it
// is the configured one.
func (r *Resolver) expire(n *node, db *sql.DB) {
	from := n.renewing.Load()
	if from == 0 || n.idle == 0 {
		return
	}
	d, done := lifetimeAt(time.Duration(r.now()-from), n.lifetime)
	db.SetConnMaxLifetime(d)
	if done {
		n.renewing.CompareAndSwap(from, 0)
	}
}

// lifetimeAt is what connections may live at a time after a renewal, and whether that
// is the configured lifetime again; 0: for ever.
func lifetimeAt(since, configured time.Duration) (d time.Duration, done bool) {
	if configured > 0 && since >= configured {
		return configured, true
	}
	return max(since, time.Millisecond), false
}

// jittered is d less up to a tenth.
func jittered(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d)/10+1)) }

// keep runs the goroutine that holds n's pool at Min.
func (r *Resolver) keep(n *node) {
	r.wg.Add(1)
	n.wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer n.wg.Done()
		timer := time.NewTimer(0)
		defer timer.Stop()
		var resolved time.Time
		for {
			select {
			case <-r.ctx.Done():
				return
			case <-n.stop:
				return
			case <-n.renewed:
			case <-timer.C:
			}
			if db := n.db.Load(); db != nil {
				r.expire(n, db) // first: warming may take its time
				// A replica that is out is not knocked at: its probe does that.
				if n.isPrimary() || n.usable.Load() {
					r.warm(n, db)
				}
			}
			if time.Since(resolved) > resolveEvery {
				r.follow(n)
				resolved = time.Now()
			}
			timer.Reset(r.keepPause(n))
		}
	}()
}

// keepPause is the time until the next look at n's pool.
func (r *Resolver) keepPause(n *node) time.Duration {
	if from := n.renewing.Load(); from != 0 && r.now()-from < int64(mostRenew) {
		return renewEvery
	}
	return jittered(keepEvery)
}

// warm opens connections until Min are open, each by itself, so that one that
// fails does not stop the others.
//
// database/sql opens a connection only when none is idle. The idle ones are
// therefore taken out first, and given back as soon as the new ones are being
// dialled: not when they have been.
func (r *Resolver) warm(n *node, db *sql.DB) {
	st := db.Stats()
	missing := n.min - st.OpenConnections
	if missing <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, warmTimeout)
	defer cancel()
	held := make([]*sql.Conn, 0, st.Idle)
	for range st.Idle {
		if c, err := db.Conn(ctx); err == nil {
			held = append(held, c)
		}
	}
	var dialled sync.WaitGroup
	fresh := make([]*sql.Conn, missing)
	for i := range fresh {
		dialled.Add(1)
		go func() {
			defer dialled.Done()
			fresh[i], _ = db.Conn(ctx) // a failure shows in the probe too
		}()
	}
	all := make(chan struct{})
	go func() { dialled.Wait(); close(all) }()
	release(held, db, n.min, all)
	<-all
	release(fresh, nil, 0, nil)
}

// release gives connections back, once at least open ones are open or being
// dialled.
func release(conns []*sql.Conn, db *sql.DB, open int, all <-chan struct{}) {
	if len(conns) > 0 && db != nil {
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for db.Stats().OpenConnections < open {
			select {
			case <-all:
				open = 0
			case <-tick.C:
			}
		}
	}
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
}
