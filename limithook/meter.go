package limithook

import "github.com/gorminfra/infra/internal/hook"

// meters are the numbers of a limiter under one prefix.
type meters struct {
	admitted, refused, shadowed, bypassed, leaseHits, leased, remembered *hook.Metric
	redisCalls, redisErrors, degraded, overflow, degradedNow, identities *hook.Metric
}

func newMeters(prefix, what string) *meters {
	counter := func(name, help string, labels ...string) *hook.Metric {
		return &hook.Metric{Name: prefix + name, Help: help, Counter: true, Labels: labels}
	}
	gauge := func(name, help string) *hook.Metric { return &hook.Metric{Name: prefix + name, Help: help} }
	return &meters{
		admitted:    counter("admitted_total", what+" admitted by the limits, or by the mode that applies while Redis does not answer."),
		refused:     counter("refused_total", what+" refused, by limit: user, global, the name of a rule, or unavailable when it could not be asked.", "scope"),
		shadowed:    counter("shadowed_total", what+" that would have been refused, and were not because the limits are in shadow mode.", "scope"),
		bypassed:    counter("bypassed_total", what+" that were free of every limit."),
		leaseHits:   counter("lease_hits_total", what+" admitted from a lease, without asking Redis."),
		leased:      counter("leased_total", "Admissions drawn from Redis in advance, by all limits. What is not used of them is lost for a window."),
		remembered:  counter("remembered_total", what+" refused again without asking Redis."),
		redisCalls:  counter("redis_calls_total", "Questions put to Redis."),
		redisErrors: counter("redis_errors_total", "Questions that Redis failed or was too slow to answer."),
		degraded:    counter("degraded_total", what+" decided without Redis because it did not answer."),
		overflow:    counter("overflow_total", "Decisions on a log that users share for want of room."),
		degradedNow: gauge("degraded", "1 while Redis counts as down and is not asked."),
		identities:  gauge("identities", "Identities held in memory."),
	}
}

var (
	ofStatements = newMeters("limit_", "Statements")
	ofRequests   = newMeters("request_limit_", "Requests")
)

func (m *meters) emit(st Stats, emit func(m *hook.Metric, value float64, labels ...string)) {
	emit(m.admitted, float64(st.Admitted))
	emit(m.refused, float64(st.RefusedUser), string(ScopeUser))
	emit(m.refused, float64(st.RefusedGlobal), string(ScopeGlobal))
	emit(m.refused, float64(st.RefusedDown), string(ScopeUnavailable))
	for name, n := range st.RefusedRules {
		emit(m.refused, float64(n), name)
	}
	for scope, n := range st.Shadowed {
		emit(m.shadowed, float64(n), scope)
	}
	emit(m.bypassed, float64(st.Bypassed))
	emit(m.leaseHits, float64(st.LeaseHits))
	emit(m.leased, float64(st.Leased))
	emit(m.remembered, float64(st.Remembered))
	emit(m.redisCalls, float64(st.RedisCalls))
	emit(m.redisErrors, float64(st.RedisErrors))
	emit(m.degraded, float64(st.Degraded))
	emit(m.overflow, float64(st.Overflow))
	down := 0.0
	if st.Down {
		down = 1
	}
	emit(m.degradedNow, down)
	emit(m.identities, float64(st.Keys))
}

// Meter implements hook.Meter.
func (a *adapter) Meter(emit func(m *hook.Metric, value float64, labels ...string)) {
	ofStatements.emit(a.Stats(), emit)
}

// RequestMeter gives the numbers of a limiter of requests, under names of their own,
// to the plugin that contains this package. There are none while nothing is limited.
func RequestMeter(l *Limiter) hook.Meter { return requestMeter{l} }

type requestMeter struct{ *Limiter }

// Meter implements hook.Meter.
func (m requestMeter) Meter(emit func(m *hook.Metric, value float64, labels ...string)) {
	if m.terms.Load().any {
		ofRequests.emit(m.Stats(), emit)
	}
}
