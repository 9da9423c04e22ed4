package limithook

// Stats is a snapshot of a limiter's counters since it was started.
type Stats struct {
	Admitted      uint64 // by the limits or by OnRedisFailure
	RefusedUser   uint64
	RefusedGlobal uint64
	RefusedDown   uint64 // under Closed
	Bypassed      uint64

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
	st := Stats{
		Admitted:      l.admitted.Load(),
		RefusedUser:   l.refusedUser.Load(),
		RefusedGlobal: l.refusedGlobal.Load(),
		RefusedDown:   l.refusedDown.Load(),
		Bypassed:      l.bypassed.Load(),
	}
	l.store.stats(&st)
	st.Admitted += st.LeaseHits // which no other counter holds
	return st
}
