package limithook

import (
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// held is what a process holds of Redis under the terms of a time.
type held struct {
	tables []holdingTable // of the users and of each rule
	all    []holding      // of the global limit, one for each of its shares
	tags   []string       // what the keys of a share begin with
}

// holdingTable holds the accounts of one limit.
type holdingTable struct {
	prefix string // of a key within its tag
	shards []holdingShard
}

type holdingShard struct {
	mu   sync.Mutex // guards what follows
	byID map[string]*holding
	room int

	_ [40]byte
}

func newHeld(cfg Config, t *terms) *held {
	h := &held{tables: make([]holdingTable, 1+len(cfg.Rules))}
	n := powerOfTwo(min(maxShards, cfg.MaxKeys))
	for i := range h.tables {
		table := &h.tables[i]
		if i > 0 {
			table.prefix = cfg.Rules[i-1].Name
		}
		table.shards = make([]holdingShard, n)
		for j := range table.shards {
			table.shards[j].byID = make(map[string]*holding)
			table.shards[j].room = cfg.MaxKeys / n
		}
	}
	shares := t.global().shares
	h.all = make([]holding, shares)
	for i := range shares {
		tag := tagOf(cfg.Name, shares, i)
		h.tags = append(h.tags, tag)
		h.all[i].keys, h.all[i].share = keysIn(tag, globalKey), i
	}
	return h
}

// tagOf is what the keys of a share begin with: its hash tag on a Cluster. A name
// has no blanks, so that no two are the same.
func tagOf(name string, shares, share int) string {
	if shares > 1 {
		name += " " + strconv.Itoa(shares) + "." + strconv.Itoa(share)
	}
	return "{limits:" + name + "}:"
}

// keysIn are the log and the leases of an account.
func keysIn(tag, account string) [2]string {
	return [2]string{tag + "log:" + account, tag + "lease:" + account}
}

// shareOf is where a user is counted. It is the same in every process.
func (h *held) shareOf(key string) int {
	if len(h.tags) == 1 || key == "" {
		return 0
	}
	return int(xxhash.Sum64String(key) % uint64(len(h.tags)))
}

// user returns what is held of a user's limit.
func (h *held) user(s *subject) *holding {
	t := &h.tables[0]
	if u := s.holding.Load(); u != nil && u.table == t && !u.gone.Load() {
		return u
	}
	u := t.find(h, s.key, s.hash)
	s.holding.Store(u)
	return u
}

// rule returns what is held of the i-th rule's limit of a key.
func (h *held) rule(i int, key string) *holding {
	return h.tables[i+1].find(h, key, hashOf(key))
}

// find returns what is held for a key. When there is no room another's holding
// is dropped, one of little worth if it is at hand: its lease is lost until its
// window has passed, which costs admissions and adds none.
func (t *holdingTable) find(in *held, key string, hash uint64) *holding {
	sh := &t.shards[hash&uint64(len(t.shards)-1)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h := sh.byID[key]
	if h != nil {
		return h
	}
	if len(sh.byID) >= sh.room {
		tries := 4
		for k, other := range sh.byID {
			if tries--; tries == 0 || other.lease.units() == 0 {
				delete(sh.byID, k)
				other.gone.Store(true)
				break
			}
		}
	}
	h = &holding{table: t}
	account := key
	if t.prefix == "" {
		h.share = in.shareOf(key)
	} else {
		account = ruleKey(t.prefix, key)
	}
	h.keys = keysIn(in.tags[h.share], account)
	sh.byID[strings.Clone(key)] = h
	return h
}

// each calls f for all that is held.
func (h *held) each(f func(*holding)) {
	for i := range h.tables {
		for j := range h.tables[i].shards {
			sh := &h.tables[i].shards[j]
			sh.mu.Lock()
			for _, u := range sh.byID {
				f(u)
			}
			sh.mu.Unlock()
		}
	}
	for i := range h.all {
		f(&h.all[i])
	}
}

// size is the number of identities and keys of rules.
func (h *held) size() (n int) {
	for i := range h.tables {
		for j := range h.tables[i].shards {
			sh := &h.tables[i].shards[j]
			sh.mu.Lock()
			n += len(sh.byID)
			sh.mu.Unlock()
		}
	}
	return n
}
