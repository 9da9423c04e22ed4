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
	reasons
)

var reasonNames = [reasons]string{"table", "catalog", "argument", "tag", "size", "writer", "redis", "roster"}

// counters only grow.
type counters struct {
	l1, l2, shared, misses, fills, invalidations, untold, corrupt atomic.Uint64
	stale, refreshes                                              atomic.Uint64
	bypasses                                                      [reasons]atomic.Uint64
}

func (c *counters) bypass(why reason) { c.bypasses[why].Add(1) }

func (c *counters) hit(at level) {
	if at == inRedis {
		c.l2.Add(1)
		return
	}
	c.l1.Add(1)
}

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
	Corrupt        uint64 // payloads of Redis that could not be read
	RedisErrors    uint64 // calls of Redis that failed or took too long
	// Bypasses counts statements that went to the database without trying to
	// fill, by reason: table, catalog, argument, tag, size, writer, redis, roster.
	Bypasses map[string]uint64

	Entries     int64 // in memory
	Bytes       int64 // in memory, estimated
	Waiting     int64 // callers that wait for another's query now
	Quarantined int   // tags that Redis has not been told of yet
	InDoubt     int   // tags written in transactions whose end nobody tells
	BreakerOpen bool  // Redis is taken for down
	Trusted     bool  // hits in memory need not ask Redis
}

// Stats returns the present numbers. It does not block.
func (c *Cache) Stats() Stats {
	n := &c.counts
	s := Stats{
		L1Hits: n.l1.Load(), L2Hits: n.l2.Load(), Shared: n.shared.Load(), Misses: n.misses.Load(), Fills: n.fills.Load(),
		Evictions: c.memory.evictions.Load(), Invalidations: n.invalidations.Load(), Corrupt: n.corrupt.Load(),
		Untold: n.untold.Load(),
		Stale:  n.stale.Load(), Refreshes: n.refreshes.Load(),
		RedisErrors: c.guard.errors.Load(), Bypasses: make(map[string]uint64, reasons),
		Entries: c.memory.entries.Load(), Bytes: c.memory.bytes.Load(), Quarantined: c.pending.len(), InDoubt: c.doubts.len(),
		Waiting:     c.flights.waiting.Load(),
		BreakerOpen: c.guard.open(), Trusted: c.trusted(),
	}
	for i := range n.bypasses {
		s.Bypasses[reasonNames[i]] = n.bypasses[i].Load()
	}
	return s
}

var (
	metricHits = &hook.Metric{Name: "cache_hits_total", Counter: true, Labels: []string{"layer"},
		Help: "Results served without a query of their own: from memory (l1), Redis (l2), or another's query (shared)."}
	metricMisses        = &hook.Metric{Name: "cache_misses_total", Counter: true, Help: "Look-ups that had to read the database."}
	metricBypasses      = &hook.Metric{Name: "cache_bypasses_total", Counter: true, Labels: []string{"reason"}, Help: "Statements that asked for the cache and could not use it."}
	metricFills         = &hook.Metric{Name: "cache_fills_total", Counter: true, Help: "Results stored."}
	metricStale         = &hook.Metric{Name: "cache_stale_hits_total", Counter: true, Help: "Results served after their TTL had ended, by StaleFor."}
	metricRefreshes     = &hook.Metric{Name: "cache_refreshes_total", Counter: true, Help: "Results read anew in the background."}
	metricEvictions     = &hook.Metric{Name: "cache_evictions_total", Counter: true, Help: "Results dropped from memory to make room."}
	metricInvalidations = &hook.Metric{Name: "cache_invalidations_total", Counter: true, Help: "Tags invalidated by this process."}
	metricUntold        = &hook.Metric{Name: "cache_untold_writes_total", Counter: true, Help: "Writes that Redis was not told of, because no instance caches their tables."}
	metricCorrupt       = &hook.Metric{Name: "cache_corrupt_total", Counter: true, Help: "Payloads of Redis that could not be read."}
	metricRedisErrors   = &hook.Metric{Name: "cache_redis_errors_total", Counter: true, Help: "Calls of Redis that failed or took too long."}
	metricEntries       = &hook.Metric{Name: "cache_entries", Help: "Results in memory."}
	metricBytes         = &hook.Metric{Name: "cache_bytes", Help: "Memory held by results, estimated."}
	metricWaiting       = &hook.Metric{Name: "cache_waiting", Help: "Callers that wait for another's query now."}
	metricQuarantined   = &hook.Metric{Name: "cache_quarantined_tags", Help: "Tags whose invalidation Redis has not taken yet."}
	metricInDoubt       = &hook.Metric{Name: "cache_in_doubt_tags", Help: "Tags written in transactions whose end is not seen."}
	metricBreaker       = &hook.Metric{Name: "cache_breaker_open", Help: "1 while Redis is taken for down."}
	metricTrusted       = &hook.Metric{Name: "cache_channel_trusted", Help: "1 while hits in memory need not ask Redis."}
)

// Meter implements hook.Meter.
func (p part) Meter(emit func(m *hook.Metric, value float64, labels ...string)) {
	s := p.c.Stats()
	emit(metricHits, float64(s.L1Hits), "l1")
	emit(metricHits, float64(s.L2Hits), "l2")
	emit(metricHits, float64(s.Shared), "shared")
	emit(metricMisses, float64(s.Misses))
	for _, why := range reasonNames {
		emit(metricBypasses, float64(s.Bypasses[why]), why)
	}
	emit(metricFills, float64(s.Fills))
	emit(metricStale, float64(s.Stale))
	emit(metricRefreshes, float64(s.Refreshes))
	emit(metricEvictions, float64(s.Evictions))
	emit(metricInvalidations, float64(s.Invalidations))
	emit(metricUntold, float64(s.Untold))
	emit(metricCorrupt, float64(s.Corrupt))
	emit(metricRedisErrors, float64(s.RedisErrors))
	emit(metricEntries, float64(s.Entries))
	emit(metricBytes, float64(s.Bytes))
	emit(metricWaiting, float64(s.Waiting))
	emit(metricQuarantined, float64(s.Quarantined))
	emit(metricInDoubt, float64(s.InDoubt))
	emit(metricBreaker, gauge(s.BreakerOpen))
	emit(metricTrusted, gauge(s.Trusted))
}

func gauge(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
