package limithook

import "github.com/gorminfra/infra/internal/hook"

var (
	admittedTotal    = counter("limit_admitted_total", "Requests admitted by the limits, or by the mode that applies while Redis does not answer.")
	refusedTotal     = counter("limit_refused_total", "Requests refused, by limit: user, global, the name of a rule, or unavailable when it could not be asked.", "scope")
	shadowedTotal    = counter("limit_shadowed_total", "Requests that would have been refused, and were not because the limits are in shadow mode.", "scope")
	bypassedTotal    = counter("limit_bypassed_total", "Requests that were free of every limit.")
	leaseHitsTotal   = counter("limit_lease_hits_total", "Requests admitted from a lease, without asking Redis.")
	leasedTotal      = counter("limit_leased_total", "Admissions drawn from Redis in advance, by all limits. What is not used of them is lost for a window.")
	rememberedTotal  = counter("limit_remembered_total", "Requests refused again without asking Redis.")
	redisCallsTotal  = counter("limit_redis_calls_total", "Questions put to Redis.")
	redisErrorsTotal = counter("limit_redis_errors_total", "Questions that Redis failed or was too slow to answer.")
	degradedTotal    = counter("limit_degraded_total", "Requests decided without Redis because it did not answer.")
	overflowTotal    = counter("limit_overflow_total", "Decisions on a log that users share for want of room.")
	degradedNow      = gauge("limit_degraded", "1 while Redis counts as down and requests are decided without it.")
	identities       = gauge("limit_identities", "Identities held in memory.")
)

func counter(name, help string, labels ...string) *hook.Metric {
	return &hook.Metric{Name: name, Help: help, Counter: true, Labels: labels}
}

func gauge(name, help string) *hook.Metric { return &hook.Metric{Name: name, Help: help} }

// Meter implements hook.Meter.
func (a *adapter) Meter(emit func(m *hook.Metric, value float64, labels ...string)) {
	st := a.Stats()
	emit(admittedTotal, float64(st.Admitted))
	emit(refusedTotal, float64(st.RefusedUser), string(ScopeUser))
	emit(refusedTotal, float64(st.RefusedGlobal), string(ScopeGlobal))
	emit(refusedTotal, float64(st.RefusedDown), string(ScopeUnavailable))
	for name, n := range st.RefusedRules {
		emit(refusedTotal, float64(n), name)
	}
	for scope, n := range st.Shadowed {
		emit(shadowedTotal, float64(n), scope)
	}
	emit(bypassedTotal, float64(st.Bypassed))
	emit(leaseHitsTotal, float64(st.LeaseHits))
	emit(leasedTotal, float64(st.Leased))
	emit(rememberedTotal, float64(st.Remembered))
	emit(redisCallsTotal, float64(st.RedisCalls))
	emit(redisErrorsTotal, float64(st.RedisErrors))
	emit(degradedTotal, float64(st.Degraded))
	emit(overflowTotal, float64(st.Overflow))
	down := 0.0
	if st.Down {
		down = 1
	}
	emit(degradedNow, down)
	emit(identities, float64(st.Keys))
}
