package limithook

import (
	"strings"
	"sync"
	"time"
)

// maxShards is the most parts the identities are spread over, each behind a
// mutex of its own.
const maxShards = 64

// memory keeps the logs of a single process: one per identity, one per key of
// each rule, and one for all together. Every decision is exact; it holds the
// mutexes of the shards that it needs, those of the users before those of the
// rules, each in its turn, and inside them that of the global log.
//
// Where there is a global limit from the start all of them are one mutex: everybody
// meets there anyway, and a second one costs more than what it would set free.
type memory struct {
	clock  func() int64
	tables [][]memoryShard // of the users and of each rule

	globalMu  sync.Mutex // guards what follows
	globalLog log
	admitted  uint64 // by the global limit alone
}

type memoryShard struct {
	mu   *sync.Mutex // guards what follows
	own  sync.Mutex  // unless it is the global one
	byID map[string]*idle
	room int // most identities in byID
	// The identities in the order of their last admission: the first is the
	// first whose window runs empty.
	first, last *idle
	// overflow is the log that the identities without room share.
	overflow idle
	shared   uint64 // decisions made on overflow
	admitted uint64

	_ [16]byte // keeps the mutexes of neighbours on cache lines of their own
}

// idle is one identity's log in the order of idleness.
type idle struct {
	log
	key        string
	prev, next *idle
	shard      *memoryShard // never changes
	gone       bool         // removed from it
}

func newMemory(cfg Config, clock func() int64) *memory {
	n := powerOfTwo(min(maxShards, cfg.MaxKeys))
	m := &memory{clock: clock, tables: make([][]memoryShard, 1+len(cfg.Rules))}
	for i := range m.tables {
		m.tables[i] = make([]memoryShard, n)
		for j := range m.tables[i] {
			sh := &m.tables[i][j]
			sh.byID = make(map[string]*idle)
			sh.room = cfg.MaxKeys / n
			if sh.mu = &sh.own; !cfg.Global.IsZero() {
				sh.mu = &m.globalMu
			}
		}
	}
	return m
}

// seat is where an account of a decision is kept.
type seat struct {
	limit *limit
	shard *memoryShard // its mutex is held; nil for the global log
	idle  *idle        // nil when the log is shared or not to be kept
}

// take fills the next of the accounts and seats in, which are empty in all their
// length: that is cheaper than copying.
func take(accounts []account, seats []seat, at *log, l *limit, sh *memoryShard, e *idle) ([]account, []seat) {
	n := len(accounts)
	accounts, seats = accounts[:n+1], seats[:n+1]
	accounts[n].log, accounts[n].rate.max, accounts[n].rate.width = at, l.Max, int64(l.Window)
	seats[n].limit, seats[n].shard, seats[n].idle = l, sh, e
	return accounts, seats
}

// run decides on a cost of n and charges it, or only looks. keys are those of
// the rules, nil where none applies.
func (m *memory) run(t *terms, s *subject, keys []string, n int, charge bool, o *outcome) {
	now := m.clock()
	if keys == nil {
		if charge && m.forBoth(t, s, now, n, o) {
			return
		}
		var accounts [2]account
		var seats [2]seat
		m.on(t, s, nil, now, n, charge, accounts[:0], seats[:0], o)
		return
	}
	var accounts [maxRules + 2]account
	var seats [maxRules + 2]seat
	m.on(t, s, keys, now, n, charge, accounts[:0], seats[:0], o)
}

// forBoth is run for the usual case, a user who was here before and all together:
// without lists of accounts and seats it takes a seventh less.
func (m *memory) forBoth(t *terms, s *subject, now int64, n int, o *outcome) (done bool) {
	l, all := t.user(), t.global()
	if !l.on() || s.key == "" || !all.on() {
		return false
	}
	sh := &m.tables[0][s.hash&uint64(len(m.tables[0])-1)]
	sh.mu.Lock()
	e := sh.known(s)
	if e == nil {
		sh.mu.Unlock()
		return false
	}
	if sh.mu != &m.globalMu {
		m.globalMu.Lock()
	}
	var own, of account
	own.log, own.rate.max, own.rate.width = &e.log, l.Max, int64(l.Window)
	of.log, of.rate.max, of.rate.width = &m.globalLog, all.Max, int64(all.Window)
	if o.ok = admitBoth(now, n, &own, &of); o.ok {
		o.counted = true
		sh.admitted++
		sh.moveToEnd(e)
	}
	if sh.mu != &m.globalMu {
		m.globalMu.Unlock()
	}
	sh.mu.Unlock()
	if of.wait > own.wait {
		o.limit, o.standing = all, of.standing
	} else {
		o.limit, o.standing = l, own.standing
	}
	return true
}

func (m *memory) on(t *terms, s *subject, keys []string, now int64, n int, charge bool, accounts []account, seats []seat, o *outcome) {
	var first *sync.Mutex
	if l := t.user(); l.on() && s.key != "" {
		sh := &m.tables[0][s.hash&uint64(len(m.tables[0])-1)]
		first = lockAlso(first, sh.mu)
		at := sh.known(s)
		e := at
		if at == nil {
			if at, e = sh.find(s.key, now, int64(l.Window), charge); e != nil {
				s.log.Store(e)
			}
		}
		accounts, seats = take(accounts, seats, &at.log, l, sh, e)
	}
	for i, key := range keys {
		if l := &t.limits[i+1]; key != "" && l.on() {
			sh := &m.tables[i+1][hashOf(key)&uint64(len(m.tables[i+1])-1)]
			first = lockAlso(first, sh.mu)
			at, e := sh.find(key, now, int64(l.Window), charge)
			accounts, seats = take(accounts, seats, &at.log, l, sh, e)
		}
	}
	if l := t.global(); l.on() {
		first = lockAlso(first, &m.globalMu)
		accounts, seats = take(accounts, seats, &m.globalLog, l, nil, nil)
	}

	o.ok = admit(now, n, charge, accounts)
	counts := charge && o.ok
	for i := len(seats) - 1; i >= 0; i-- {
		mu := &m.globalMu
		if sh := seats[i].shard; sh != nil {
			mu = sh.mu
			switch e := seats[i].idle; {
			case e == nil || !charge:
			case o.ok:
				sh.moveToEnd(e)
			case e.size == 0:
				sh.remove(e) // refused by another limit: nothing to remember
			}
			if counts && i == 0 {
				sh.admitted++
			}
		} else if counts && i == 0 {
			m.admitted++
		}
		if i == 0 || mu != first {
			mu.Unlock()
		}
	}
	for i := range accounts {
		o.tell(seats[i].limit, &accounts[i].standing, !charge)
	}
	o.counted = counts && len(seats) > 0
}

// lockAlso locks mu, unless it is the first one that is held, and returns the first.
// No two of the others are the same.
func lockAlso(first, mu *sync.Mutex) *sync.Mutex {
	if mu != first {
		mu.Lock()
	}
	if first == nil {
		return mu
	}
	return first
}

// known returns the log that the subject was found to have before, if it still has it.
func (sh *memoryShard) known(s *subject) *idle {
	if e := s.log.Load(); e != nil && e.shard == sh && !e.gone {
		return e
	}
	return nil
}

// find returns the log of a key and its place in the order; no place when the
// log is shared or not to be kept.
func (sh *memoryShard) find(key string, now, width int64, keep bool) (at, e *idle) {
	if e = sh.byID[key]; e != nil {
		return e, e
	}
	sh.overflow.drop(sh.overflow.expired(max(now, sh.overflow.newest()), width))
	if !keep {
		return &idle{log: sh.overflow.copyOf()}, nil
	}
	// Two at a time: the ones that are gone are forgotten faster than others
	// arrive, and no decision pays for many.
	for range 2 {
		if e := sh.first; e != nil && (e.size == 0 || now-e.newest() >= width) {
			sh.remove(e)
		}
	}
	if len(sh.byID) >= sh.room {
		sh.shared++
		return &sh.overflow, nil
	}
	// What is on the shared log may have been this key's: it takes all of it
	// along, so that moving out admits nobody twice.
	e = &idle{log: sh.overflow.copyOf(), key: strings.Clone(key), shard: sh}
	sh.byID[e.key] = e
	sh.append(e)
	return e, e
}

func (sh *memoryShard) moveToEnd(e *idle) {
	if sh.last != e {
		sh.unlink(e)
		sh.append(e)
	}
}

func (sh *memoryShard) remove(e *idle) {
	sh.unlink(e)
	delete(sh.byID, e.key)
	e.gone = true
}

func (sh *memoryShard) append(e *idle) {
	e.prev, e.next = sh.last, nil
	if sh.last == nil {
		sh.first = e
	} else {
		sh.last.next = e
	}
	sh.last = e
}

func (sh *memoryShard) unlink(e *idle) {
	if e.prev == nil {
		sh.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		sh.last = e.prev
	} else {
		e.next.prev = e.prev
	}
}

// reset forgets what an identity, or the key of a rule, was charged. What it was
// charged on a shared log stays there until its window has passed.
func (m *memory) reset(table int, hash uint64, key string) {
	sh := &m.tables[table][hash&uint64(len(m.tables[table])-1)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e := sh.byID[key]; e != nil {
		sh.remove(e)
	}
}

func (m *memory) resetGlobal() {
	m.globalMu.Lock()
	defer m.globalMu.Unlock()
	m.globalLog = log{}
}

func (m *memory) stats(st *Stats) {
	for _, table := range m.tables {
		for i := range table {
			sh := &table[i]
			sh.mu.Lock()
			st.Keys += len(sh.byID)
			st.Overflow += sh.shared
			st.Admitted += sh.admitted
			sh.mu.Unlock()
		}
	}
	m.globalMu.Lock()
	st.Admitted += m.admitted
	m.globalMu.Unlock()
}

var origin = time.Now()

// monotonic is the time since the process started. It never steps and costs
// half of time.Now.
func monotonic() int64 { return int64(time.Since(origin)) }
