package hook_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// txns is told of transactions.
type txns struct {
	refuse error

	mu     sync.Mutex // guards the rest
	ended  []hook.TxnOutcome
	before int
	writes []string
}

func (o *txns) Begin(*hook.Txn) {}

func (o *txns) BeforeCommit(_ context.Context, t *hook.Txn) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.before++
	for _, w := range t.Writes() {
		for _, table := range w.Writes {
			o.writes = append(o.writes, table.String())
		}
	}
	return o.refuse
}

func (o *txns) Ended(_ *hook.Txn, outcome hook.TxnOutcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = append(o.ended, outcome)
}

func (o *txns) outcomes() []hook.TxnOutcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]hook.TxnOutcome(nil), o.ended...)
}

type throughProxy struct {
	*place
	db    *gorm.DB
	proxy *testbed.Proxy
	txns  *txns
}

func newThroughProxy(t *testing.T) *throughProxy {
	t.Helper()
	cluster := testbed.SharedCluster(t)
	p := &throughProxy{place: newPlace(t, cluster, cluster.NewDatabase(t), "s"), txns: &txns{}}
	p.proxy = testbed.NewProxy(t, cluster.Primary().Addr())
	db, err := gorm.Open(postgres.New(postgres.Config{
		DSN:                  testbed.DSN(p.proxy.Addr(), p.database) + "&search_path=" + p.schema,
		PreferSimpleProtocol: true, // a statement is one packet, so the proxy can cut before or after it
	}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	hub, err := hook.Attach(db)
	if err != nil {
		t.Fatal(err)
	}
	remove, err := hub.Register(p.txns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	p.db = db
	return p
}

func (p *throughProxy) rows(t *testing.T) (n int) {
	t.Helper()
	if err := p.raw.QueryRowContext(t.Context(), "SELECT count(*) FROM companies").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLostConnectionsTellAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	transaction := func(db *gorm.DB) error {
		return db.Transaction(func(tx *gorm.DB) error { return tx.Create(&Company{Name: "x"}).Error })
	}
	defaultTransaction := func(db *gorm.DB) error { return db.Create(&Company{Name: "x"}).Error }
	autocommit := func(db *gorm.DB) error {
		return db.Session(&gorm.Session{SkipDefaultTransaction: true}).Create(&Company{Name: "x"}).Error
	}
	prepared := func(db *gorm.DB) error {
		return db.Session(&gorm.Session{PrepareStmt: true}).Exec("INSERT INTO companies (name) VALUES (?)", "a_value").Error
	}
	exec := func(db *gorm.DB) error { return db.Exec("insert into companies (name) values ('x')").Error }
	for _, c := range []struct {
		name  string
		fault func(*testbed.Proxy)
		write func(*gorm.DB) error
		rows  int // what is really there
	}{
		{"request of COMMIT lost", func(p *testbed.Proxy) { p.CutBefore("commit") }, transaction, 0},
		{"answer to COMMIT lost", func(p *testbed.Proxy) { p.CutAfter("commit") }, transaction, 1},
		{"request of a default COMMIT lost", func(p *testbed.Proxy) { p.CutBefore("commit") }, defaultTransaction, 0},
		{"answer to a default COMMIT lost", func(p *testbed.Proxy) { p.CutAfter("commit") }, defaultTransaction, 1},
		{"request of a single write lost", func(p *testbed.Proxy) { p.CutBefore("INSERT") }, autocommit, 0},
		{"answer to a single write lost", func(p *testbed.Proxy) { p.CutAfter("INSERT") }, autocommit, 1},
		{"answer to a prepared write lost", func(p *testbed.Proxy) { p.CutAfter("a_value") }, prepared, 1},
		{"answer to an Exec lost", func(p *testbed.Proxy) { p.CutAfter("insert into") }, exec, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newThroughProxy(t)
			c.fault(p.proxy)
			err := c.write(p.db)
			if err == nil {
				t.Fatalf("the caller was told of success, with %d rows there", p.rows(t))
			}
			if got := p.txns.outcomes(); len(got) != 1 || got[0] != hook.Unknown {
				t.Errorf("told %v of %v, want unknown once", got, err)
			}
			waitUntil(t, func() bool { return p.rows(t) == c.rows })
			if err := p.db.Create(&Company{Name: "after"}).Error; err != nil {
				t.Errorf("not usable afterwards: %v", err)
			}
		})
	}
}

// A context that ends while COMMIT runs comes back as the bare
// context.Canceled, and the server commits all the same.
func TestContextThatEndsDuringCommitIsUnknown(t *testing.T) {
	t.Parallel()
	p := newThroughProxy(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tx := p.db.WithContext(ctx).Begin()
	if err := tx.Create(&Company{Name: "x"}).Error; err != nil {
		t.Fatal(err)
	}
	p.proxy.Blackhole(testbed.ToClient)
	go func() {
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			var n int
			if err := p.raw.QueryRowContext(ctx, "SELECT count(*) FROM companies").Scan(&n); err != nil || n == 1 {
				break
			}
		}
		cancel()
	}()
	err := tx.Commit().Error
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("commit: %v, want context.Canceled", err)
	}
	if got := p.txns.outcomes(); len(got) != 1 || got[0] != hook.Unknown || p.rows(t) != 1 {
		t.Fatalf("told %v with %d rows there, want unknown once and one row", got, p.rows(t))
	}
	if err := p.proxy.Restore(); err != nil {
		t.Fatal(err)
	}
}

func TestWriteThatWasNeverSentIsRolledBack(t *testing.T) {
	t.Parallel()
	p := newThroughProxy(t)
	p.proxy.Cut()
	for _, db := range []*gorm.DB{p.db.Session(&gorm.Session{SkipDefaultTransaction: true}), p.db} {
		if err := db.Create(&Company{Name: "x"}).Error; err == nil {
			t.Fatal("no error without a server")
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.db.WithContext(ended).Exec("DELETE FROM companies").Error; !errors.Is(err, context.Canceled) {
		t.Fatalf("exec: %v, want context.Canceled", err)
	}
	for _, o := range p.txns.outcomes() {
		if o != hook.RolledBack {
			t.Errorf("told %v, want rolled_back: nothing was sent", p.txns.outcomes())
		}
	}
}

func TestRefusalBeforeCommitRollsBack(t *testing.T) {
	t.Parallel()
	p := newThroughProxy(t)
	p.txns.refuse = errors.New("no mark could be set")
	for _, db := range []*gorm.DB{p.db, p.db.Session(&gorm.Session{SkipDefaultTransaction: true})} {
		if err := db.Create(&Company{Name: "x"}).Error; !errors.Is(err, p.txns.refuse) {
			t.Errorf("create: %v, want the refusal", err)
		}
	}
	if err := p.db.Transaction(func(tx *gorm.DB) error { return tx.Create(&Company{Name: "x"}).Error }); !errors.Is(err, p.txns.refuse) {
		t.Errorf("transaction: %v, want the refusal", err)
	}
	if err := p.db.Transaction(func(tx *gorm.DB) error { return tx.Find(&[]Company{}).Error }); err != nil {
		t.Errorf("a transaction that wrote nothing was asked: %v", err)
	}
	if n := p.rows(t); n != 0 {
		t.Errorf("%d rows are there, want none", n)
	}
	if got := p.txns.outcomes(); len(got) != 4 || got[0] != hook.RolledBack || got[1] != hook.RolledBack || got[2] != hook.RolledBack || got[3] != hook.Committed {
		t.Errorf("told %v, want three times rolled_back, then committed", got)
	}
}

func TestTransactionTellsTheTablesItWrote(t *testing.T) {
	t.Parallel()
	p := newThroughProxy(t)
	err := p.db.Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&User{Name: "u", Pets: []Pet{{Name: "p"}}}).Error; err != nil {
			return err
		}
		_ = tx.Transaction(func(tx *gorm.DB) error { // rolled back, and told all the same
			tx.Exec("DELETE FROM toys")
			return errInner
		})
		_, err := tx.Statement.ConnPool.ExecContext(t.Context(), "UPDATE accounts SET number = 'n'") // past the callbacks
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"users": true, "pets": true, "toys": true, "accounts": true}
	for _, w := range p.txns.writes {
		delete(want, w)
	}
	if len(want) > 0 {
		t.Fatalf("told %v, without %v", p.txns.writes, want)
	}
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen within 5 s")
		}
	}
}
