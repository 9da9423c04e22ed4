package resolver

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

// onReplica is GORM with one replica behind a proxy, whose end no probe notices.
type onReplica struct {
	t     *testing.T
	db    *gorm.DB
	r     *Resolver
	proxy *testbed.Proxy
}

func newOnReplica(t *testing.T, g *rig) *onReplica {
	t.Helper()
	o := &onReplica{t: t, proxy: testbed.NewProxy(t, g.c.Replica(0).Addr())}
	o.db, o.r = open(t, g.primary, Config{
		Replicas: DSNs(testbed.DSN(o.proxy.Addr(), g.name)), Pool: Pool{Min: -1}, Logger: quiet(),
		MaxLag: AnyStaleness, Probe: Probe{Interval: time.Minute, Timeout: 10 * time.Second},
	})
	must(t, o.r.Ready(deadline(t)))
	eventually(t, "the replica to be used", func() bool {
		o.r.primary().wake()
		o.r.replicas()[0].wake()
		return recovering(t, o.db.WithContext(inScope(deadline(t), "up")))
	})
	return o
}

// begin begins a read-only transaction on the replica.
func (o *onReplica) begin(ctx context.Context, prepared bool) *gorm.DB {
	o.t.Helper()
	tx := o.db.WithContext(ctx).Session(&gorm.Session{PrepareStmt: prepared}).
		Begin(&sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	must(o.t, tx.Error)
	return tx
}

func (o *onReplica) retries() (n uint64) {
	for _, s := range o.r.Nodes() {
		n += s.Decisions["retry"]
	}
	return n
}

const whereAmI = "SELECT pg_is_in_recovery()::text || ' ' || current_setting('transaction_read_only') || ' ' || current_setting('transaction_isolation')"

// Nobody has been shown anything of a transaction before its first statement
// brings a row.
func TestR08ReadOnlyTransactionMovesWhenItsFirstStatementFindsTheReplicaFallen(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	const onPrimary = "false on repeatable read"
	rows := func(tx *gorm.DB) (where string, err error) {
		rows, err := tx.Raw(whereAmI).Rows()
		if err != nil {
			return "", err
		}
		defer rows.Close()
		for rows.Next() {
			err = errors.Join(err, rows.Scan(&where))
		}
		return where, errors.Join(err, rows.Err())
	}
	row := func(tx *gorm.DB) (where string, err error) {
		err = tx.Raw(whereAmI).Row().Scan(&where)
		return where, err
	}
	scan := func(tx *gorm.DB) (where string, err error) {
		err = tx.Raw(whereAmI).Scan(&where).Error
		return where, err
	}
	find := func(tx *gorm.DB) (where string, err error) {
		var list []string
		err = tx.Table("items").Limit(1).Pluck(whereAmI[len("SELECT "):], &list).Error
		if len(list) == 1 {
			where = list[0]
		}
		return where, err
	}
	cut := func(o *onReplica) { o.proxy.Cut() }
	reset := func(o *onReplica) { o.proxy.Reset() }
	lost := func(o *onReplica) { o.proxy.CutBefore("pg_is_in_recovery") }
	unanswered := func(o *onReplica) { o.proxy.CutAfter("pg_is_in_recovery") }
	for name, tt := range map[string]struct {
		fault    func(*onReplica)
		before   func(tx *gorm.DB) error // between BEGIN and the fault
		read     func(tx *gorm.DB) (string, error)
		prepared bool
		moves    bool
	}{
		"find, replica gone":             {fault: cut, read: find, moves: true},
		"find, connection lost":          {fault: reset, read: find, moves: true},
		"find, statement lost":           {fault: lost, read: find, moves: true},
		"find, answer lost":              {fault: unanswered, read: find, moves: true},
		"prepared, replica gone":         {fault: cut, read: find, prepared: true, moves: true},
		"prepared, connection lost":      {fault: reset, read: find, prepared: true, moves: true},
		"rows, answer lost":              {fault: unanswered, read: rows, moves: true},
		"row, connection lost":           {fault: reset, read: row, moves: true},
		"scan, connection lost":          {fault: reset, read: scan, moves: true},
		"a save point first":             {fault: reset, read: find, before: func(tx *gorm.DB) error { return tx.SavePoint("a").Error }},
		"a read first":                   {fault: reset, read: find, before: func(tx *gorm.DB) error { return tx.Find(&[]item{}).Error }},
		"a setting first":                {fault: reset, read: find, before: func(tx *gorm.DB) error { return tx.Exec("SET LOCAL work_mem = '8MB'").Error }},
		"the driver's transaction asked": {fault: reset, read: find, before: rawSQL},
		"a lock": {fault: reset, read: func(tx *gorm.DB) (string, error) {
			return "", tx.Exec("SELECT pg_advisory_xact_lock(1)").Error
		}},
		"a time of its own": {fault: reset, read: func(tx *gorm.DB) (string, error) {
			ctx, cancel := context.WithTimeout(tx.Statement.Context, time.Minute)
			defer cancel()
			return find(tx.WithContext(ctx))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOnReplica(t, g)
			before := o.retries()
			tx := o.begin(inScope(deadline(t), name), tt.prepared)
			defer tx.Rollback()
			if tt.before != nil {
				must(t, tt.before(tx))
			}
			tt.fault(o)
			where, err := tt.read(tx)
			if !tt.moves {
				if err == nil || o.retries() != before {
					t.Errorf("%q, %v, after %d retries: want the error of the lost connection", where, err, o.retries()-before)
				}
				return
			}
			if err != nil || where != onPrimary || o.retries() != before+1 {
				t.Errorf("%q, %v, after %d retries: want %q after one", where, err, o.retries()-before, onPrimary)
			}
			if again, err := find(tx); err != nil || again != where {
				t.Errorf("the next statement: %q, %v", again, err)
			}
			must(t, tx.Commit().Error)
			pool, err := o.db.DB()
			must(t, err)
			eventually(t, "the connection to be given back", func() bool { return pool.Stats().InUse == 0 })
		})
	}
}

// rawSQL asks for the *sql.Tx, which a program may keep.
func rawSQL(tx *gorm.DB) error {
	pool := tx.Statement.ConnPool
	if p, ok := pool.(*gorm.PreparedStmtTX); ok {
		pool = p.Tx
	}
	if pool.(interface{ Unwrap() *sql.Tx }).Unwrap() == nil {
		return errors.New("no *sql.Tx")
	}
	return nil
}

// A transaction that somebody else uses too, or ends, while its first statement
// fails is moved whole or not at all.
func TestR08TransactionThatIsUsedTwiceAtOnceIsOnOneNode(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	for i := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			o := newOnReplica(t, g)
			ctx, cancel := context.WithCancel(inScope(deadline(t), "twice"))
			defer cancel()
			tx := o.begin(ctx, i%2 == 0)
			o.proxy.Reset()
			var wg sync.WaitGroup
			var errs [2]error
			for j := range errs {
				wg.Go(func() { errs[j] = tx.Exec(whereAmI).Error })
			}
			switch i / 2 {
			case 2:
				wg.Go(cancel)
			case 3:
				own := tx.Session(&gorm.Session{}) // GORM writes into it
				wg.Go(func() { own.Rollback() })
			}
			wg.Wait()
			var where string
			if i < 4 && errs[0] == nil && errs[1] == nil {
				if err := tx.Raw(whereAmI).Scan(&where).Error; err != nil {
					t.Errorf("lost although two statements ran in it: %v", err)
				}
			}
			tx.Rollback()
			pool, err := o.db.DB()
			must(t, err)
			eventually(t, "the connections to be given back", func() bool { return pool.Stats().InUse == 0 })
		})
	}
}
