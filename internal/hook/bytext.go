package hook

import (
	"context"
	"maps"
	"slices"
)

// writeInTxn notes a write in its transaction. A COMMIT by its text, which the pool
// does not see, ends what was written before it, whatever becomes of the transaction:
// for the parts that is a write which commits by itself. Each later one may be so, too.
func (r *Record) writeInTxn(ctx context.Context) error {
	t := r.Txn
	var part *Txn
	switch {
	case r.Text.Commits:
		part = t.committedByText()
	case r.Access == Write && t.loose.Load():
		part = t.part(ctx)
		part.note(ctx, r.Text, r.Args, r.Scope)
	}
	if r.Access == Write {
		t.note(ctx, r.Text, r.Args, r.Scope)
		if part != nil && r.Text.Commits {
			part.note(ctx, r.Text, r.Args, r.Scope)
		}
	}
	if part == nil || !part.Wrote() || len(r.stages.txns) == 0 {
		return nil
	}
	if err := part.beforeCommit(ctx); err != nil {
		part.end(RolledBack)
		return err
	}
	r.setRare().part = part
	return nil
}

// part is a part of the transaction that ends before it.
func (t *Txn) part(ctx context.Context) *Txn {
	part := &Txn{Context: ctx, Node: t.Node, Autocommit: true, stages: t.stages}
	part.session.Store(t.Session())
	return part
}

// committedByText returns all that the transaction has done so far.
func (t *Txn) committedByText() *Txn {
	t.loose.Store(true)
	part := t.part(t.Context)
	t.mu.Lock()
	defer t.mu.Unlock()
	part.writes, part.values = slices.Clone(t.writes), maps.Clone(t.values)
	return part
}

// endPart tells the parts how the part of the record's transaction has ended.
func (r *Record) endPart(completed bool, err error) {
	part := r.few().part
	switch {
	case part == nil:
	case completed:
		part.end(autocommitOutcome(err))
	default:
		part.end(Unknown)
	}
}
