package limithook

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// shared keeps the count in Redis. It answers from leases and remembered
// refusals where it can, asks Redis in one round trip for both accounts where
// it cannot, and leaves the decision to a Mode while Redis does not answer.
type shared struct {
	clock        func() int64
	logs         *redisLogs
	link         *link
	mode         Mode
	local        *memory // for Local
	user, global sharedLimit
	most         int // Lease.Max

	shards []sharedShard

	globalMu sync.Mutex // guards what follows; taken inside a shard's mutex
	all      holding    // of the global limit
	alone    tally      // of the requests that no user limit applies to

	globalRefused atomic.Bool // all remembers a refusal; written under globalMu

	degraded atomic.Uint64
}

// tally counts what was decided without asking Redis.
type tally struct{ leaseHits, remembered uint64 }

// sharedLimit is a limit with the term of its leases; term 0: no leases.
type sharedLimit struct {
	Limit
	term int64

	max, window, lease any // as the script takes them, made once
}

type sharedShard struct {
	mu   sync.Mutex // guards what follows
	byID map[string]*holding
	room int
	tally

	_ [16]byte
}

func newShared(cfg Config, clock func() int64) *shared {
	n := 1 << (bits.Len(uint(min(maxShards, cfg.MaxKeys))) - 1)
	s := &shared{
		clock:  clock,
		logs:   newRedisLogs(cfg.Redis, cfg.Name, cfg.Timeout),
		mode:   cfg.OnRedisFailure,
		user:   newSharedLimit(cfg.PerUser, cfg.Lease),
		global: newSharedLimit(cfg.Global, cfg.Lease),
		most:   cfg.Lease.Max,
		shards: make([]sharedShard, n),
	}
	for i := range s.shards {
		s.shards[i].byID = make(map[string]*holding)
		s.shards[i].room = cfg.MaxKeys / n
	}
	if s.mode == Local {
		s.local = newMemory(part(cfg.PerUser, cfg.Instances), part(cfg.Global, cfg.Instances), cfg.MaxKeys, clock)
	}
	s.link = newLink(cfg, s.logs)
	return s
}

func newSharedLimit(l Limit, lease Lease) sharedLimit {
	term := lease.For
	if term == 0 {
		term = min(l.Window/64, time.Second)
	}
	if lease.Max <= 1 || term < minLeaseFor {
		term = 0
	}
	return sharedLimit{Limit: l, term: int64(term), max: l.Max, window: int64((l.Window + 999) / 1000), lease: int64(term) / 1000}
}

// part is one instance's part of a limit: at least 1.
func part(l Limit, instances int) Limit {
	if !l.IsZero() {
		l.Max = max(1, l.Max/instances)
	}
	return l
}

func (s *shared) decide(ctx context.Context, sub *subject, cost int) (outcome, error) {
	now := s.clock()
	sh := s.shard(sub)
	if sh != nil {
		sh.mu.Lock()
		if o, refused := s.userRefused(now, cost, sh, sub); refused {
			sh.mu.Unlock()
			return o, nil
		}
	}
	s.lockGlobal()
	user, global := s.holdings(sh, sub)
	t := &s.alone
	if sh != nil {
		t = &sh.tally
	}
	o, done := s.here(now, cost, user, global, t)
	if done {
		s.unlock(sh)
		return o, nil
	}
	if s.link.down.Load() {
		s.unlock(sh)
		return s.degrade(sub, cost, true, s.link.why()), nil
	}
	c := &call{s: s, sub: sub, sh: sh, cost: cost, charge: true}
	c.user.prepare(user, &s.user, now, cost, s.most)
	c.global.prepare(global, &s.global, now, cost, s.most)
	s.unlock(sh)
	return c.do(ctx)
}

// shard is where the user's holding is, nil when no user limit applies.
func (s *shared) shard(sub *subject) *sharedShard {
	if s.user.Max == 0 || sub.key == "" {
		return nil
	}
	return &s.shards[sub.hash&uint64(len(s.shards)-1)]
}

// lock takes the mutexes of a decision: the shard's, if any, and inside it that
// of the global limit, if there is one.
func (s *shared) lock(sh *sharedShard) {
	if sh != nil {
		sh.mu.Lock()
	}
	s.lockGlobal()
}

func (s *shared) lockGlobal() {
	if s.global.Max > 0 {
		s.globalMu.Lock()
	}
}

func (s *shared) unlock(sh *sharedShard) {
	if s.global.Max > 0 {
		s.globalMu.Unlock()
	}
	if sh != nil {
		sh.mu.Unlock()
	}
}

// holdings gives what is held of both accounts, nil where there is no limit.
func (s *shared) holdings(sh *sharedShard, sub *subject) (user, global *holding) {
	if sh != nil {
		user = sh.find(sub)
	}
	if s.global.Max > 0 {
		global = &s.all
	}
	return user, global
}

// userRefused repeats a refusal of the user's limit that is remembered, where the
// global limit, which could ask for a longer wait, remembers none. The shard's
// mutex is held.
func (s *shared) userRefused(now int64, cost int, sh *sharedShard, sub *subject) (o outcome, refused bool) {
	user := sh.find(sub)
	if user.refusedCost != cost || s.globalRefused.Load() || user.has(now, cost) {
		return o, false
	}
	wait := user.refused(now, cost)
	if wait == 0 {
		return o, false
	}
	o.user = user.standing(now)
	o.user.wait = wait
	sh.remembered++
	return o, true
}

// here decides from what is held, if that is possible.
func (s *shared) here(now int64, cost int, user, global *holding, t *tally) (o outcome, done bool) {
	userHas := user == nil || user.has(now, cost)
	globalHas := global == nil || global.has(now, cost)
	if userHas && globalHas {
		o.ok = true
		if user != nil {
			user.units -= cost
			o.user = user.standing(now)
		}
		if global != nil {
			global.units -= cost
			o.global = global.standing(now)
		}
		o.leased = true
		t.leaseHits++
		return o, true
	}
	var u, g int64
	if !userHas {
		u = user.refused(now, cost)
	}
	if !globalHas {
		g = global.refused(now, cost)
	}
	if u == 0 && g == 0 {
		return o, false
	}
	if user != nil {
		o.user = user.standing(now)
		o.user.wait = u
	}
	if global != nil {
		o.global = global.standing(now)
		o.global.wait = g
	}
	t.remembered++
	return o, true
}

// find returns what is held for an identity. When there is no room another's
// holding is dropped, one of little worth if it is at hand: its lease is lost
// until its window has passed, which costs admissions and adds none.
func (sh *sharedShard) find(s *subject) *holding {
	h := s.holding.Load()
	if h != nil && h.shard == sh && !h.gone {
		return h
	}
	h = sh.byID[s.key]
	if h == nil {
		if len(sh.byID) >= sh.room {
			tries := 4
			for k, h := range sh.byID {
				if tries--; tries == 0 || h.units == 0 && !h.asking {
					delete(sh.byID, k)
					h.gone = true
					break
				}
			}
		}
		h = &holding{shard: sh}
		sh.byID[s.key] = h
	}
	s.holding.Store(h)
	return h
}

// degrade decides without Redis.
func (s *shared) degrade(sub *subject, cost int, charge bool, cause error) (o outcome) {
	s.degraded.Add(1)
	switch s.mode {
	case Local:
		// A cost above this instance's part passes when its log is empty.
		o = s.local.run(sub, s.local.fit(sub, cost), charge)
	case Open:
		o.ok = true
	default:
		o.cause = cause
	}
	o.degraded = true
	return o
}

func (s *shared) peek(ctx context.Context, sub *subject) (outcome, error) {
	if s.link.down.Load() {
		return s.degrade(sub, 1, false, s.link.why()), nil
	}
	sh := s.shard(sub)
	c := &call{s: s, sub: sub, sh: sh, cost: 1}
	s.lock(sh)
	user, global := s.holdings(sh, sub)
	s.unlock(sh)
	if user != nil {
		c.user.holding, c.user.limit = user, &s.user
	}
	if global != nil {
		c.global.holding, c.global.limit = global, &s.global
	}
	return c.do(ctx)
}

func (s *shared) reset(ctx context.Context, sub *subject) error {
	_, err := s.link.do(ctx, func(ctx context.Context) error { return s.logs.reset(ctx, sub.key) })
	if err != nil {
		return err
	}
	if s.local != nil {
		_ = s.local.reset(ctx, sub)
	}
	sh := s.shard(sub)
	s.lock(sh)
	user, _ := s.holdings(sh, sub)
	user.refusedCost = 0
	s.unlock(sh)
	return nil
}

func (s *shared) stats(st *Stats) {
	st.Degraded = s.degraded.Load()
	s.link.stats(st)
	if s.local != nil {
		s.local.stats(st)
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		st.Keys += len(sh.byID)
		st.LeaseHits += sh.leaseHits
		st.Remembered += sh.remembered
		sh.mu.Unlock()
	}
	s.globalMu.Lock()
	st.LeaseHits += s.alone.leaseHits
	st.Remembered += s.alone.remembered
	s.globalMu.Unlock()
}

// close waits for the calls under way and gives the unspent leases back.
func (s *shared) close() {
	s.link.stop()
	if s.link.down.Load() {
		return
	}
	now := s.clock()
	var back []unspent
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for key, h := range sh.byID {
			if h.has(now, 1) {
				back = append(back, unspent{key, h.stamp, h.units})
				h.units = 0
			}
		}
		sh.mu.Unlock()
	}
	s.globalMu.Lock()
	if s.all.has(now, 1) {
		back = append(back, unspent{globalKey, s.all.stamp, s.all.units})
		s.all.units = 0
	}
	s.globalMu.Unlock()
	// What cannot be given back in time is charged until its window has
	// passed, as after a crash.
	s.logs.giveBack(back)
}

var _ store = (*shared)(nil)
