package resolver

import (
	"context"
	"time"
)

// What a session was shown by the primary is on a replica for certain once that
// has replayed a sample which was sent after the session's last read had ended. A
// session that reads without a pause leaves no time for such a sample, and would
// stay on the primary for good. So when it has been there for a probe interval
// its reads wait, for a part of an interval, for a sample of their own and for a
// replica to replay it. If none does, they go on on the primary, and wait again
// after an interval, then two, four, up to maxVain times doubled.

const (
	waitShare = 5 // the part of a probe interval that reads wait at most
	maxVain   = 4
)

// free decides for a read that no replica surely has enough for.
func (r *Resolver) free(ctx context.Context, q *question) (*node, reason) {
	s, now, interval := q.session, r.now(), int64(r.cfg.Probe.Interval)
	until := s.mayWait(now, interval, interval/waitShare)
	if until == 0 {
		return r.primary(), reasonSeen
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(until-now))
	defer cancel()
	if _, err := r.sampleAfter(ctx, q.seen, time.Duration(interval)); err != nil {
		return r.primary(), reasonSeen
	}
	again := time.NewTicker(forcedEvery)
	defer again.Stop()
	for ask := true; ; {
		probed := r.nextProbe()
		s.follow(q)
		n, why := r.decide(q)
		switch {
		case why == reasonReplica:
			s.lead(n)
			return n, why
		case why != reasonSeen, ctx.Err() != nil:
			return n, why
		}
		if ask {
			r.wakeReplicas()
		}
		ask = false
		select {
		case <-again.C:
			ask = true
		case <-probed:
		case <-ctx.Done():
		}
	}
}

func (r *Resolver) wakeReplicas() {
	for _, n := range r.replicas() {
		if n.usable.Load() && !n.isPrimary() {
			n.wake()
		}
	}
}

// wait is what a session whose reads are on the primary, because of what they
// were shown there, knows of that.
type wait struct {
	since int64 // 0: they are not; otherwise since when, or since they waited in vain
	until int64 // they wait for a replica
	vain  int   // how often they did
	on    *node // where the first of them that waited went
}

// mayWait returns until when a read of the session may wait for a replica, which
// is the same time for all that come meanwhile; 0: not now.
func (s *session) mayWait(now, interval, patience int64) (until int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &s.wait
	switch {
	case now < w.until:
		return w.until
	case w.since == 0:
		w.since = now
		return 0
	case now-w.since < interval<<max(min(w.vain-1, maxVain), 0):
		return 0
	}
	w.until = now + patience
	w.since, w.on = w.until, nil
	w.vain++
	return w.until
}

// follow lets a read that waits go where the session has gone meanwhile, so that
// its reads do not part on several replicas, of which none has what all showed.
func (s *session) follow(q *question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown.on != nil {
		q.shown, q.seen = s.shown, max(q.seen, s.shown.at)
	}
	if q.favourite == nil && s.wait.on != nil {
		q.favourite, q.favour = s.wait.on, reasonReplica
	}
}

// lead notes where the first read went that waited.
func (s *session) lead(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait.on == nil {
		s.wait.on = n
	}
}
