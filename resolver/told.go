package resolver

import "context"

// Wrote tells that the work of ctx has just written, or may have, by a way that the
// plugin does not see: the *sql.DB of db.DB(), the driver's own connection (pgx's
// CopyFrom), another program that it waited for. Call it after the commit: later
// reads of the same request or job see what was written by then, and its token
// speaks of it; without a scope that holds for the whole process. It does not block.
//
// A cache is told by its InvalidateTables.
func (r *Resolver) Wrote(ctx context.Context) {
	if !r.opened.Load() {
		return
	}
	in := containerOf(optionsOf(ctx), openScope(ctx))
	for _, home := range r.homes() {
		now := home.now()
		home.process.note(now)
		if in != nil {
			in.of(home, true).note(now)
		} else {
			home.unscoped.note(now)
		}
	}
}
