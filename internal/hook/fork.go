package hook

import "context"

// Fork returns a copy of a read for use on another goroutine, after its caller
// has gone: a detached flight or a refresh. Call Next on it, read the rows,
// then Finish. What r has been charged for already it is not charged for again.
func (r *Record) Fork(ctx context.Context) *Record {
	f := &Record{
		Chain: r.Chain, Where: r.Where, Access: r.Access, Background: true,
		NeedPrimary: r.NeedPrimary,
		DB:          r.stages.hub.root, Context: ctx, SQL: r.SQL, Args: r.Args, Text: r.Text, Scope: r.Scope, Parent: r.Parent,
		Start: Now(), Rows: -1,
		stages: r.stages, orig: r.orig, prepared: r.prepared, reached: true,
		forked: true, charged: r.charged,
	}
	if hint := r.Hint(); hint != (Hint{}) {
		f.setRare().hint = hint
	}
	f.NeedLSN(r.MinLSN())
	return f
}

// Take notes what a fork of r has done in r's place, after its Finish: where it
// ran, what it waited for, and that it has been charged, so that a Next of r
// charges the caller no second time.
func (r *Record) Take(f *Record) {
	r.Node, r.Reason, r.Retries, r.Outcome = f.Node, f.Reason, f.Retries, f.Outcome
	r.Waited += f.Waited
	r.charged = f.charged
}

// Finish ends a fork: n is the number of rows read, err what went wrong.
func (r *Record) Finish(n int64, err error) {
	r.Rows, r.Err = n, err
	r.finish(true)
}
