package resolver

import (
	"context"
	"math/rand/v2"
	"time"
)

// start runs the goroutine that watches n.
func (r *Resolver) start(n *node) {
	if n.watch == nil && n.hooked.Load() != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		n.answered, n.lastErr = true, "the pool is no *sql.DB and cannot be probed"
		r.vacant.Store(r.vacancy() != "")
		return
	}
	n.watched.Store(true)
	r.wg.Add(1)
	n.wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer n.wg.Done()
		r.probeLoop(n)
	}()
}

// maxPatience is how many timeouts a connection attempt may take, once the node
// has not answered for a while.
const maxPatience = 4

func (r *Resolver) probeLoop(n *node) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ; {
		select {
		case <-r.ctx.Done():
			return
		case <-n.stop:
			return
		case <-timer.C:
		case <-n.kick:
		}
		// A slow connect must not make a node unreachable for good, and a quick
		// verdict needs a short first attempt: so later ones may take longer.
		patience := min(1<<max(failures-1, 0), maxPatience)
		began := r.now()
		if r.probe(n, r.cfg.Probe.Timeout*time.Duration(patience)) {
			failures = 0
		} else {
			failures = min(failures+1, maxPatience)
		}
		timer.Reset(r.pause(r.now() - began))
	}
}

// pause is the time until the next probe. The jitter only shortens, so that
// Interval is what two probes are apart at most.
func (r *Resolver) pause(spent int64) time.Duration {
	interval := int64(r.cfg.Probe.Interval)
	if r.hurry.Load() > r.now() {
		interval = min(interval, max(interval/hurryFactor, int64(minHurry)))
	}
	return time.Duration(max(interval-rand.Int64N(interval/5+1)-spent, 0))
}

func (r *Resolver) wasLost(n *node) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !n.health.in && n.health.ejections > 0
}

// probe asks n once.
func (r *Resolver) probe(n *node, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(r.ctx, timeout)
	defer cancel()
	if n.hooked.Load() == nil {
		if err := r.openDialector(n); err != nil {
			r.missed(n, refused, err)
			return false
		}
	}
	if n.watch == nil {
		return false
	}
	n.probes.Add(1)
	if n.moved.Swap(false) {
		n.watch.drop()
	}
	var sent int64
	id, rd, err := n.watch.sample(ctx, func() { sent = r.now() })
	switch {
	case r.ctx.Err() != nil:
		return false
	case err != nil:
		r.missed(n, probeFailure(err), err)
		return false
	}
	if n.isPrimary() && rd.placed && rd.standby {
		// The connection may outlive the server's time as the primary, while
		// the same address leads to another one by now.
		n.watch.drop()
	}
	if r.wasLost(n) {
		r.flush(n)
		n.dial.forgive()
	}
	r.leaveServerOfBefore(n, id)
	r.took(n, id, rd, sent)
	return true
}
