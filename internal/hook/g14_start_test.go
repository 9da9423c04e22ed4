package hook_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

func init() {
	behaviours["G14"] = []scenario{
		{name: "dialector-without-callbacks", run: func(e *env) {
			db, err := gorm.Open(silentDialector{}, &gorm.Config{DisableAutomaticPing: true, Logger: logger.Discard})
			e.must(err)
			_, err = hook.Attach(db)
			e.is("says what is missing", err != nil && strings.Contains(err.Error(), `"silent"`) && strings.Contains(err.Error(), "gorm:create"))
		}},
		{name: "wrong-DSN-at-start", run: func(e *env) {
			_, err := gorm.Open(postgres.Open("postgres://nobody@127.0.0.1:1/none?connect_timeout=1"), &gorm.Config{Logger: logger.Discard})
			e.is("GORM's own error", err != nil)
		}},
		{name: "start-needs-no-replica", run: func(e *env) {
			e.seed()
			if e.hub != nil && e.hooked() {
				dead := openPool(e.t, testbed.DSN("127.0.0.1:1", e.database))
				node := e.hub.NewNode("dead", dead)
				defer node.Close()
			}
			e.did("find", e.db.Find(&[]Company{}))
		}},
		{name: "dead-replica-with-a-retry", run: func(e *env) {
			if e.variant != "bare" {
				e.leave()
				return
			}
			e.seed()
			hub, err := hook.Attach(e.db)
			e.must(err)
			r := &failover{dead: hub.NewNode("dead", openPool(e.t, testbed.DSN("127.0.0.1:1", e.database)+"&connect_timeout=2")), primary: hub.Primary()}
			remove, err := hub.Register(r)
			e.must(err)
			defer remove()
			defer r.dead.Close()
			for _, db := range []*gorm.DB{e.db, e.db.Session(&gorm.Session{PrepareStmt: true})} {
				var us []User
				e.did("find", db.Find(&us), us)
				e.is("answered", len(us) == 3)
				var n int
				e.got("row", db.Raw("SELECT count(*) FROM users").Row().Scan(&n), n)
				e.is("answered", n == 3)
				rows, err := db.Model(&User{}).Rows()
				e.must(err)
				e.must(rows.Close())
			}
			e.is("retried each once", r.retries.Load() == 6)
			e.is("told of two attempts each", r.attempts.Load() == 12 && r.failed.Load() == 6)
			r.primary = r.dead
			err = e.db.Find(&[]User{}).Error
			e.is("a clear error where there is no other", err != nil && strings.Contains(err.Error(), "127.0.0.1:1"))
			e.did("writes go on", e.db.Create(&Company{Name: "x"}))
		}},
		{name: "router-without-a-node", run: func(e *env) {
			if e.variant != "bare" {
				e.leave()
				return
			}
			hub, err := hook.Attach(e.db)
			e.must(err)
			r := &failover{}
			remove, err := hub.Register(r)
			e.must(err)
			defer remove()
			e.is("find", errors.Is(e.db.Find(&[]User{}).Error, errNoNode))
			e.is("row", errors.Is(e.db.Raw("SELECT 1").Row().Scan(new(int)), errNoNode))
			_, err = e.db.Raw("SELECT 1").Rows() //nolint:sqlclosecheck,rowserrcheck // it fails
			e.is("rows", errors.Is(err, errNoNode))
			e.is("exec", errors.Is(e.db.Exec("DELETE FROM companies").Error, errNoNode))
			e.is("create", errors.Is(e.db.Create(&Company{Name: "x"}).Error, errNoNode))
			e.is("begin", errors.Is(e.db.Begin().Error, errNoNode))
			e.is("transaction", errors.Is(e.db.Transaction(func(*gorm.DB) error { return nil }), errNoNode))
			e.is("autocommit is told as rolled back", len(r.ended) == 1 && r.ended[0] == hook.RolledBack)
		}},
		{name: "after-the-last-part-has-gone", run: func(e *env) {
			e.seed()
			if e.hooked() {
				hub, err := hook.Attach(e.db)
				e.must(err)
				for i := range 2 {
					remove, err := hub.Register(&failover{primary: hub.Primary()})
					if i == 0 { // a second router is refused while the first is there
						e.is("refused", err != nil)
						e.removePart()
						continue
					}
					e.must(err)
					remove()
					remove()
				}
			}
			e.did("find", e.db.Order("id").Find(&[]Company{}))
			e.did("create", e.db.Create(&Company{Name: "x"}))
			if e.hooked() {
				e.is("nobody was told", len(e.records()) == 0)
			}
		}},
	}
}

var errNoNode = errors.New("no node")

// failover sends every read outside transactions to a dead node first.
type failover struct {
	dead, primary             *hook.Node
	retries, attempts, failed atomic.Int64
	ended                     []hook.TxnOutcome
}

func (f *failover) Route(_ context.Context, r *hook.Record) (*hook.Node, error) {
	switch {
	case f.primary == nil:
		return nil, errNoNode
	case r.Access == hook.ReadOnly:
		return f.dead, nil
	}
	return f.primary, nil
}

func (f *failover) Retry(_ context.Context, r *hook.Record, err error) *hook.Node {
	if r.Node != f.dead || err == nil || f.primary == f.dead {
		return nil
	}
	f.retries.Add(1)
	return f.primary
}

func (f *failover) Done(_ *hook.Record, _ *hook.Node, err error, _ time.Duration) {
	f.attempts.Add(1)
	if err != nil {
		f.failed.Add(1)
	}
}

func (f *failover) RouteTx(context.Context, *sql.TxOptions, hook.Hint) (*hook.Node, error) {
	if f.primary == nil {
		return nil, errNoNode
	}
	return f.primary, nil
}

func (f *failover) Begin(*hook.Txn)                               {}
func (f *failover) BeforeCommit(context.Context, *hook.Txn) error { return nil }
func (f *failover) Ended(_ *hook.Txn, o hook.TxnOutcome)          { f.ended = append(f.ended, o) }

// silentDialector registers no callbacks.
type silentDialector struct{}

func (silentDialector) Name() string                                   { return "silent" }
func (silentDialector) Initialize(*gorm.DB) error                      { return nil }
func (silentDialector) Migrator(*gorm.DB) gorm.Migrator                { return nil }
func (silentDialector) DataTypeOf(*schema.Field) string                { return "" }
func (silentDialector) DefaultValueOf(*schema.Field) clause.Expression { return nil }
func (silentDialector) BindVarTo(clause.Writer, *gorm.Statement, any)  {}
func (silentDialector) QuoteTo(clause.Writer, string)                  {}
func (silentDialector) Explain(text string, _ ...any) string           { return text }
