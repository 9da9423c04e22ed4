package resolver

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorminfra/infra/internal/hook"
)

// Not all that a text shows as a read can run on a standby: an unlogged table has
// no rows there, and a function that is declared stable may write all the same.
// Only the server knows. It then refuses, and nothing of the statement has run: the
// primary runs it.

// refusedByStandby reports whether err is how a standby refuses a statement that a
// primary may run: read_only_sql_transaction, feature_not_supported ("cannot access
// temporary or unlogged relations during recovery"), and
// object_not_in_prerequisite_state ("recovery is in progress"). The latter two have
// other meanings too; the primary then gives the same error.
func refusedByStandby(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "25006", "0A000", "55000":
		return true
	}
	return false
}

// onPrimaryInstead sends a read that a replica refused as a standby to the primary,
// if its priority allows that; nil otherwise. What would have written counts as a
// write of its session.
func (r *Resolver) onPrimaryInstead(ctx context.Context, rec *hook.Record, err error) *hook.Node {
	q := question{toPrimary: true, why: reasonRetry, priority: optionsOf(ctx).priority}
	if r.class(q.priority).Spill < 0 {
		return nil
	}
	n, _, late := r.settle(ctx, &q)
	if late != nil || r.refuse(n) != nil {
		return nil // the caller gets the error of the first attempt
	}
	if isReadOnly(err) {
		rec.Mark |= markMayWrite
	}
	r.bind(rec, &q, n)
	return r.again(rec, n)
}
