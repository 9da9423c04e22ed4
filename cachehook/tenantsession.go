package cachehook

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gorminfra/infra/internal/sqltext"
)

// SessionTenant makes each session of a pool ask for the tenant of the statement
// that it runs, so that what a cache is told by the same function, or by
// [WithTenant], is what the policies of the database see:
//
//	db, err := gorm.Open(postgres.New(postgres.Config{
//		DSN: dsn, OptionOpenDB: []stdlib.OptionOpenDB{cachehook.SessionTenant("app.tenant", tenantOf)},
//	}), &gorm.Config{})
//	err = db.Use(cachehook.New(cachehook.Config{Tenant: tenantOf}))
//
// Before a statement, or the BEGIN of a transaction, whose tenant is another than
// the connection's last one, the setting is set for the session: one more round
// trip. Setting may be "role", and a tenant then is the name of one. Without a
// tenant it is emptied, or the role of the login; a new connection keeps what its
// DSN says. Statements in a transaction stay with the tenant of its BEGIN. When the
// setting cannot be set the statement fails without having run. What a statement of
// the program's own sets lasts until the next statement; what a function sets that
// it calls is not seen.
//
// Replicas that the resolver opens by DSN do the same; those given as a Dialector
// need the option too. Behind a pooler that shares connections between transactions
// (PgBouncer in transaction mode) it does not work. The setting must not be
// search_path, by which names would mean other tables than the catalogue says, nor one
// that Postgres does not know: one of your own needs a dot in its name. Connecting then
// fails. tenant may be nil.
func SessionTenant(setting string, tenant func(ctx context.Context) (key string, ok bool)) stdlib.OptionOpenDB {
	s := &sessionTenant{setting: setting, tenant: tenant, place: "infra:tenant:" + setting}
	if setting == "role" {
		s.nobody = "none"
	}
	// Not AfterConnect and ResetSession: a connection that the pool opens for one who
	// waits knows nothing of its context, and errors of a reset are ignored.
	return stdlib.OptionBeforeConnect(func(_ context.Context, cfg *pgx.ConnConfig) error {
		if setting == "" || strings.EqualFold(setting, "search_path") {
			return fmt.Errorf("cachehook: SessionTenant %q: must be a role or a setting that policies look at", setting)
		}
		if !strings.Contains(setting, ".") && setting != "role" { // one that Postgres must have, or no tenant can be set
			cfg.AfterConnect = knowing(setting, cfg.AfterConnect)
		}
		if cfg.Tracer == nil {
			cfg.Tracer = s
		} else {
			cfg.Tracer = multitracer.New(cfg.Tracer, s)
		}
		return nil
	})
}

// knowing makes a connection fail whose server has no such setting, where the cause can
// be told: pgx hides what keeps a statement without arguments from being sent.
func knowing(setting string, then func(context.Context, *pgconn.PgConn) error) func(context.Context, *pgconn.PgConn) error {
	return func(ctx context.Context, pg *pgconn.PgConn) error {
		if err := pg.ExecParams(ctx, "SELECT pg_catalog.current_setting($1)", [][]byte{[]byte(setting)}, nil, nil, nil).Read().Err; err != nil {
			return fmt.Errorf("cachehook: SessionTenant %q: a setting of your own has a dot in its name, as app.tenant: %w", setting, err)
		}
		if then == nil {
			return nil
		}
		return then(ctx, pg)
	}
}

// sessionTenant is told of each statement before it is sent.
type sessionTenant struct {
	setting, nobody string
	tenant          func(context.Context) (string, bool)
	place           string // where a connection keeps the value that it was given
}

var (
	_ pgx.QueryTracer    = (*sessionTenant)(nil)
	_ pgx.BatchTracer    = (*sessionTenant)(nil)
	_ pgx.CopyFromTracer = (*sessionTenant)(nil)
)

// follow sets the setting if need be. The context that it returns ends the statement
// where that has failed.
func (s *sessionTenant) follow(ctx context.Context, conn *pgx.Conn) context.Context {
	pg := conn.PgConn()
	if pg.TxStatus() != 'I' { // what is set in a transaction ends with it, perhaps
		return ctx
	}
	held, before := pg.CustomData()[s.place]
	who := tenantOf(ctx, s.tenant)
	switch {
	case !who.declared && !before:
		return ctx
	case who.key == "":
		who.key = s.nobody
	}
	if held == any(who.key) {
		return ctx
	}
	pg.CustomData()[s.place] = nil // not known
	r := pg.ExecParams(ctx, "SELECT pg_catalog.set_config($1, $2, false)", [][]byte{[]byte(s.setting), []byte(who.key)}, nil, nil, nil).Read()
	if r.Err != nil {
		return refusal{ctx, fmt.Errorf("cachehook: set %s to the tenant: %w", s.setting, r.Err)}
	}
	pg.CustomData()[s.place] = who.key
	return ctx
}

// touches reports whether a statement may set the setting itself.
func touches(sql string) bool {
	st := sqltext.Analyze(sql)
	return st.Session || st.Opaque || st.Multiple || st.Operation == sqltext.Unknown || writesSettings(st)
}

// writesSettings recognises UPDATE pg_settings, which is SET by another name.
func writesSettings(st *sqltext.Statement) bool {
	return slices.ContainsFunc(st.Writes, func(t sqltext.Table) bool { return t.Name == "pg_settings" })
}

// forget has the setting set anew before the next statement.
func (s *sessionTenant) forget(conn *pgx.Conn) {
	if data := conn.PgConn().CustomData(); data[s.place] != nil {
		data[s.place] = nil
	}
}

// refusal is a context that has ended by an error of its own.
type refusal struct {
	context.Context
	err error
}

func (r refusal) Err() error { return r.err }

func (r refusal) Done() <-chan struct{} { return ended }

var ended = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// TraceQueryStart implements pgx.QueryTracer.
func (s *sessionTenant) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	ctx = s.follow(ctx, conn)
	if touches(data.SQL) {
		s.forget(conn)
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (s *sessionTenant) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (s *sessionTenant) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	ctx = s.follow(ctx, conn)
	for _, q := range data.Batch.QueuedQueries {
		if touches(q.SQL) {
			s.forget(conn)
		}
	}
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (s *sessionTenant) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (s *sessionTenant) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TraceCopyFromStart implements pgx.CopyFromTracer.
func (s *sessionTenant) TraceCopyFromStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	return s.follow(ctx, conn)
}

// TraceCopyFromEnd implements pgx.CopyFromTracer.
func (s *sessionTenant) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}
