package resolver

// The name of this file is for GORM: it looks for the program's line outside of
// its own packages and of files named so, and would find this one.

import (
	"context"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
)

// traceKey is the context's key of where a statement went.
type traceKey struct{}

// tracer is GORM's logger with the node in front of each statement.
type tracer struct{ logger.Interface }

// trace puts a tracer before db's logger.
func trace(db *gorm.DB) {
	if _, ok := db.Logger.(tracer); !ok {
		db.Logger = tracer{db.Logger}
	}
}

// LogMode implements logger.Interface.
func (l tracer) LogMode(level logger.LogLevel) logger.Interface {
	return tracer{l.Interface.LogMode(level)}
}

// ParamsFilter implements gorm.ParamsFilter.
func (l tracer) ParamsFilter(ctx context.Context, sql string, params ...any) (string, []any) {
	if f, ok := l.Interface.(gorm.ParamsFilter); ok {
		return f.ParamsFilter(ctx, sql, params...)
	}
	return sql, params
}

// Trace implements logger.Interface.
func (l tracer) Trace(ctx context.Context, begin time.Time, fc func() (string, int64), err error) {
	where, ok := ctx.Value(traceKey{}).(string)
	if !ok {
		l.Interface.Trace(ctx, begin, fc, err)
		return
	}
	l.Interface.Trace(ctx, begin, func() (string, int64) {
		sql, rows := fc()
		return "[" + where + "] " + sql, rows
	}, err)
}

// traced notes in the statement's context where it went.
func (r *Resolver) traced(rec *hook.Record) {
	if !r.root.cfg.Trace || rec.Chain == hook.Direct || rec.Background {
		return
	}
	where := ""
	switch {
	case rec.Outcome != hook.Database:
		where = rec.Outcome.String()
	case rec.Node != nil:
		where = rec.Node.Name
	}
	if stmt := rec.DB.Statement; where != "" && stmt.Context.Value(traceKey{}) != where {
		stmt.Context = context.WithValue(stmt.Context, traceKey{}, where)
	}
}
