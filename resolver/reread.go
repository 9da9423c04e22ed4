package resolver

import "time"

// rereadEvery is how often the catalogue is read anew: a migration is the work of
// another program as a rule, and may make a function volatile that was not.
const rereadEvery = time.Minute

// reread runs the goroutine that does it, where statements have a choice of nodes.
func (r *Resolver) reread() {
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		timer := time.NewTimer(jittered(r.rereads))
		defer timer.Stop()
		for {
			select {
			case <-r.ctx.Done():
				return
			case <-timer.C:
			}
			if len(r.replicas()) > 0 && r.hasLSN() {
				// An error leaves what is known as it was: the probes tell of the primary,
				// and a standby refuses what it must not run.
				_ = r.hub.Reread(r.ctx)
			}
			timer.Reset(jittered(r.rereads))
		}
	}()
}
