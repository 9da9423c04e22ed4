package cachehook

import (
	"sync/atomic"

	"github.com/gorminfra/infra/internal/hook"
)

// reason says why a statement that asked for the cache went past it.
type reason uint8

const (
	reasonTable    reason = iota // the catalogue forbids
	reasonCatalog                // the catalogue is not known
	reasonArgument               // an argument that no key can be made of
	reasonTag                    // a tag that cannot be used
	reasonSize                   // the result is too large
	reasonWriter                 // a write of a tag is under way
	reasonRedis                  // Redis does not answer
	reasonRoster                 // not all instances know yet that the table is cached
	reasonTenant                 // row-level security, and no tenant is declared
	reasons
)

var reasonNames = [reasons]string{"table", "catalog", "argument", "tag", "size", "writer", "redis", "roster", "tenant"}

// counters only grow.
type counters struct {
	invalidations, untold, emptied atomic.Uint64

	corrupt  corrupted
	bypasses [reasons]atomic.Uint64
}

func (c *counters) bypass(why reason) { c.bypasses[why].Add(1) }

// Stats is a snapshot of the cache's numbers. Counters start at zero with New.
type Stats struct {
	L1Hits, L2Hits uint64 // served from memory, from Redis
	Shared         uint64 // served by another's query
	Misses         uint64 // went to the database, and filled or tried to
	Stale          uint64 // those of them whose TTL had ended, by StaleFor
	Refreshes      uint64 // results read anew in the background
	Fills          uint64 // results stored
	Evictions      uint64 // results dropped from memory to make room
	Invalidations  uint64 // tags that got a new stamp from this process
	Untold         uint64 // writes that Redis need not be told of: no instance caches their tables
	Emptied        uint64 // writes that emptied everything, since it is not known what they change
	Corrupt        uint64 // payloads of Redis that could not be read; each was a miss
	RedisErrors    uint64 // calls of Redis that failed or took too long
	// Bypasses counts statements that went to the database without trying to
	// fill, by reason: table, catalog, argument, tag, size, writer, redis, roster,
	// tenant (row-level security, and none is declared).
	Bypasses map[string]uint64
	// CorruptBy splits Corrupt by reason: foreign, version, checksum, structure,
	// mismatch.
	CorruptBy map[string]uint64
	// Tables are the numbers by table, of at most 200 tables that the catalogue
	// knows. What depends on several counts under the first of them by name. The
	// name "" has what depends on none, is kept by hand, or is beyond the 200.
	Tables map[string]TableStats

	Entries     int64 // in memory
	Bytes       int64 // in memory, estimated
	Waiting     int64 // callers that wait for another's query now
	Quarantined int   // tags that Redis has not been told of yet
	InDoubt     int   // tags written in transactions whose end nobody tells
	BreakerOpen bool  // Redis is taken for down
	Trusted     bool  // hits in memory need not ask Redis
	Paused      bool  // by Pause
}

// TableStats are the numbers of one table.
type TableStats struct {
	L1Hits, L2Hits, Shared, Stale, Refreshes, Fills, Invalidations uint64
	// Misses by what was lacking: cold (nothing kept, or not any more), expired,
	// invalidated, corrupt, form (kept for another type of destination).
	Misses map[string]uint64
	// Refused are results that were read and not kept, by reason: size (above
	// MaxResult), not_found, overtaken (invalidated while they were read),
	// session; type and redis (not kept in Redis alone).
	Refused        map[string]uint64
	Entries, Bytes int64 // in memory now
}

// Stats returns the present numbers. It does not block.
func (c *Cache) Stats() Stats {
	n := &c.counts
	s := Stats{
		Evictions: c.memory.evictions.Load(), Invalidations: n.invalidations.Load(),
		Untold: n.untold.Load(), Emptied: n.emptied.Load(),
		CorruptBy: make(map[string]uint64), Tables: make(map[string]TableStats),
		Bypasses: make(map[string]uint64, reasons),
		Entries:  c.memory.entries.Load(), Bytes: c.memory.bytes.Load(), Quarantined: c.pending.len(), InDoubt: c.doubts.len(),
		Waiting: c.flights.waiting.Load(),
		Trusted: c.trusted(), Paused: c.paused.Load(),
	}
	for _, g := range c.guards() {
		s.RedisErrors += g.errors.Load()
		s.BreakerOpen = s.BreakerOpen || g.open()
	}
	for i := range n.bypasses {
		s.Bypasses[reasonNames[i]] = n.bypasses[i].Load()
	}
	for i := range n.corrupt {
		if v := n.corrupt[i].Load(); v > 0 {
			s.CorruptBy[corruptionNames[i]] = v
			s.Corrupt += v
		}
	}
	c.tallies.each(func(name string, t *tally) {
		one := t.stats()
		s.L1Hits += one.L1Hits
		s.L2Hits += one.L2Hits
		s.Shared += one.Shared
		s.Stale += one.Stale
		s.Refreshes += one.Refreshes
		s.Fills += one.Fills
		for _, v := range one.Misses {
			s.Misses += v
		}
		s.Tables[name] = one
	})
	return s
}

func (t *tally) stats() TableStats {
	s := TableStats{
		L1Hits: t.l1.Load(), L2Hits: t.l2.Load(), Shared: t.shared.Load(), Stale: t.stale.Load(),
		Refreshes: t.refreshes.Load(), Fills: t.fills.Load(), Invalidations: t.invalidations.Load(),
		Misses: make(map[string]uint64), Refused: make(map[string]uint64),
		Entries: t.entries.Load(), Bytes: t.bytes.Load(),
	}
	for i := range t.misses {
		if v := t.misses[i].Load(); v > 0 {
			s.Misses[missNames[i]] = v
		}
	}
	for i := range t.refused {
		if v := t.refused[i].Load(); v > 0 {
			s.Refused[fillNames[i]] = v
		}
	}
	return s
}

var (
	metricHits = &hook.Metric{Name: "cache_hits_total", Counter: true, Labels: []string{"table", "layer"},
		Help: "Results served without a query of their own: from memory (l1), Redis (l2), or another's query (shared)."}
	metricMisses        = &hook.Metric{Name: "cache_misses_total", Counter: true, Labels: []string{"table", "reason"}, Help: "Look-ups that had to read the database."}
	metricBypasses      = &hook.Metric{Name: "cache_bypasses_total", Counter: true, Labels: []string{"reason"}, Help: "Statements that asked for the cache and could not use it."}
	metricFills         = &hook.Metric{Name: "cache_fills_total", Counter: true, Labels: []string{"table"}, Help: "Results stored."}
	metricRefused       = &hook.Metric{Name: "cache_fills_refused_total", Counter: true, Labels: []string{"table", "reason"}, Help: "Results that were read and not kept."}
	metricTableBytes    = &hook.Metric{Name: "cache_table_bytes", Labels: []string{"table"}, Help: "Memory held by a table's results, estimated."}
	metricTableWrites   = &hook.Metric{Name: "cache_table_invalidations_total", Counter: true, Labels: []string{"table"}, Help: "Invalidations of a table by this process."}
	metricStale         = &hook.Metric{Name: "cache_stale_hits_total", Counter: true, Labels: []string{"table"}, Help: "Results served after their TTL had ended, by StaleFor."}
	metricRefreshes     = &hook.Metric{Name: "cache_refreshes_total", Counter: true, Labels: []string{"table"}, Help: "Results read anew in the background."}
	metricEvictions     = &hook.Metric{Name: "cache_evictions_total", Counter: true, Help: "Results dropped from memory to make room."}
	metricInvalidations = &hook.Metric{Name: "cache_invalidations_total", Counter: true, Help: "Tags invalidated by this process."}
	metricUntold        = &hook.Metric{Name: "cache_untold_writes_total", Counter: true, Help: "Writes that Redis was not told of, because no instance caches their tables."}
	metricEmptied       = &hook.Metric{Name: "cache_emptied_total", Counter: true, Help: "Writes by this process that emptied everything, since it is not known what they change."}
	metricCorrupt       = &hook.Metric{Name: "cache_corrupt_total", Counter: true, Labels: []string{"reason"}, Help: "Payloads of Redis that could not be read."}
	metricRedisErrors   = &hook.Metric{Name: "cache_redis_errors_total", Counter: true, Help: "Calls of Redis that failed or took too long."}
	metricEntries       = &hook.Metric{Name: "cache_entries", Help: "Results in memory."}
	metricBytes         = &hook.Metric{Name: "cache_bytes", Help: "Memory held by results, estimated."}
	metricWaiting       = &hook.Metric{Name: "cache_waiting", Help: "Callers that wait for another's query now."}
	metricQuarantined   = &hook.Metric{Name: "cache_quarantined_tags", Help: "Tags whose invalidation Redis has not taken yet."}
	metricInDoubt       = &hook.Metric{Name: "cache_in_doubt_tags", Help: "Tags written in transactions whose end is not seen."}
	metricBreaker       = &hook.Metric{Name: "cache_breaker_open", Help: "1 while Redis is taken for down."}
	metricPaused        = &hook.Metric{Name: "cache_paused", Help: "1 while this process serves and keeps nothing, by Pause."}
	metricTrusted       = &hook.Metric{Name: "cache_channel_trusted", Help: "1 while hits in memory need not ask Redis."}
)

// Meter implements hook.Meter.
func (p part) Meter(emit func(m *hook.Metric, value float64, labels ...string)) {
	s := p.c.Stats()
	for name, t := range s.Tables {
		emit(metricHits, float64(t.L1Hits), name, "l1")
		emit(metricHits, float64(t.L2Hits), name, "l2")
		emit(metricHits, float64(t.Shared), name, "shared")
		for _, why := range missNames {
			emit(metricMisses, float64(t.Misses[why]), name, why)
		}
		for why, n := range t.Refused {
			emit(metricRefused, float64(n), name, why)
		}
		emit(metricFills, float64(t.Fills), name)
		emit(metricStale, float64(t.Stale), name)
		emit(metricRefreshes, float64(t.Refreshes), name)
		emit(metricTableWrites, float64(t.Invalidations), name)
		emit(metricTableBytes, float64(t.Bytes), name)
	}
	for _, why := range reasonNames {
		emit(metricBypasses, float64(s.Bypasses[why]), why)
	}
	emit(metricEvictions, float64(s.Evictions))
	emit(metricInvalidations, float64(s.Invalidations))
	emit(metricUntold, float64(s.Untold))
	emit(metricEmptied, float64(s.Emptied))
	for _, why := range corruptionNames {
		emit(metricCorrupt, float64(s.CorruptBy[why]), why)
	}
	emit(metricRedisErrors, float64(s.RedisErrors))
	emit(metricEntries, float64(s.Entries))
	emit(metricBytes, float64(s.Bytes))
	emit(metricWaiting, float64(s.Waiting))
	emit(metricQuarantined, float64(s.Quarantined))
	emit(metricInDoubt, float64(s.InDoubt))
	emit(metricBreaker, gauge(s.BreakerOpen))
	emit(metricTrusted, gauge(s.Trusted))
	emit(metricPaused, gauge(s.Paused))
}

func gauge(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
