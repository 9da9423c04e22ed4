package limithook

// Stats is a snapshot of a limiter's counters since it was started.
type Stats struct {
	Admitted      uint64 // by the limits or by OnRedisFailure
	RefusedUser   uint64
	RefusedGlobal uint64
	RefusedDown   uint64            // under Closed
	RefusedRules  map[string]uint64 // by the name of the rule; nil without rules
	Shadowed      map[string]uint64 // by scope: what Config.Shadow admitted all the same; nil without it
	Bypassed      uint64

	Leased      uint64 // drawn from Redis in advance, for the user, each rule and all together
	LeaseHits   uint64 // admitted from a lease
	Remembered  uint64 // refused without asking Redis again
	RedisCalls  uint64 // decisions and looks that asked Redis
	RedisErrors uint64 // of RedisCalls, those that failed or took too long
	Degraded    uint64 // decided by OnRedisFailure

	Down     bool   // OnRedisFailure decides at present
	Keys     int    // identities held in memory
	Overflow uint64 // decisions on a shared log for want of room: see Config.MaxKeys
}

// Stats returns the counters. They are not of one instant.
func (l *Limiter) Stats() Stats {
	t := l.terms.Load()
	st := Stats{Admitted: l.admitted.Load(), Bypassed: l.bypassed.Load()}
	var refused [maxRules + 2]uint64
	switch {
	case l.shared != nil:
		l.shared.stats(t, &st)
		st.Admitted += st.LeaseHits // which no other counter holds
		for i := range l.shared.tallies {
			for j := range refused {
				refused[j] += l.shared.tallies[i].remembered[j].Load()
			}
		}
	case l.memory != nil:
		l.memory.stats(&st)
	}
	for i := range refused {
		refused[i] += l.refused[i].Load()
	}
	global := len(t.limits) - 1
	if l.cfg.Shadow {
		st.Shadowed = map[string]uint64{string(ScopeUnavailable): l.refusedDown.Load()}
		for i := range t.limits {
			st.Shadowed[string(t.limits[i].scope)] = refused[i]
			st.Admitted += refused[i]
		}
		st.Admitted += l.refusedDown.Load()
		return st
	}
	st.RefusedUser, st.RefusedGlobal, st.RefusedDown = refused[0], refused[global], l.refusedDown.Load()
	for i, r := range t.rules {
		if st.RefusedRules == nil {
			st.RefusedRules = map[string]uint64{}
		}
		st.RefusedRules[r.Name] = refused[i+1]
	}
	return st
}
