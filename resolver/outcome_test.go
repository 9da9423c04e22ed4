package resolver

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestR12WriteWhoseAnswerIsLostHasAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	proxy := testbed.NewProxy(t, c.Primary().Addr())
	db, r := open(t, testbed.DSN(proxy.Addr(), g.name), Config{Replicas: DSNs(g.nodes...), Probe: patient, Pool: Pool{Min: -1}, Logger: quiet()})
	must(t, r.Ready(deadline(t)))
	for name, tt := range map[string]struct {
		arm     func(string)
		pattern string
		write   func(n int64) error
		unknown bool
		rows    int64
	}{
		"autocommit, lost after": {proxy.CutAfter, "4001", func(int64) error {
			return db.Exec("INSERT INTO items (n) VALUES (?::text::bigint)", "4001").Error
		}, true, 1},
		"commit, lost after": {proxy.CutAfter, "commit", func(n int64) error {
			return db.Transaction(func(tx *gorm.DB) error { return tx.Exec("INSERT INTO items (n) VALUES (4002)").Error })
		}, true, 1},
		"default transaction, insert lost": {proxy.CutAfter, "4003", func(n int64) error {
			return db.Transaction(func(tx *gorm.DB) error { return tx.Exec("INSERT INTO items (n) VALUES (4003)").Error })
		}, false, 0},
		"commit of a read-only transaction, lost after": {proxy.CutAfter, "commit", func(int64) error {
			return db.WithContext(Primary(deadline(t))).Transaction(func(tx *gorm.DB) error { return tx.First(&item{}, 1).Error }, &sql.TxOptions{ReadOnly: true})
		}, false, 0},
		"refused by the server": {func(string) {}, "", func(int64) error {
			return db.Exec("INSERT INTO items (id, n) VALUES (1, 4004)").Error
		}, false, 0},
	} {
		tt.arm(tt.pattern)
		err := tt.write(0)
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
		if got := errors.Is(err, ErrOutcomeUnknown); got != tt.unknown {
			t.Errorf("%s: unknown: %v: %v", name, got, err)
		}
		must(t, proxy.Restore())
	}
	var rows []int64
	eventually(t, "the writes to have happened once", func() bool {
		conn, err := c.Primary().Conn(deadline(t), g.name)
		must(t, err)
		defer conn.Close(context.Background())
		rows = nil
		r, err := conn.Query(deadline(t), "SELECT n FROM items WHERE n BETWEEN 4001 AND 4004 ORDER BY n")
		must(t, err)
		for r.Next() {
			var n int64
			must(t, r.Scan(&n))
			rows = append(rows, n)
		}
		must(t, r.Err())
		return len(rows) >= 2
	})
	if len(rows) != 2 || rows[0] != 4001 || rows[1] != 4002 {
		t.Errorf("rows %v", rows)
	}
	// What may have happened must be seen.
	ctx := inScope(deadline(t), "unknown")
	proxy.CutAfter("4005")
	if err := db.WithContext(ctx).Exec("INSERT INTO items (n) VALUES (?::text::bigint)", "4005").Error; !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatal(err)
	}
	if floorOf(ctx, r) == 0 {
		t.Error("an unknown outcome is no write of the session")
	}
}

func floorOf(ctx context.Context, r *Resolver) int64 {
	return r.sessionOf(&noOptions, openScope(ctx), false).floor(r.now())
}

func TestReadOnlyTransactionBeginsElsewhereWhenAReplicaFalls(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	proxy := testbed.NewProxy(t, c.Replica(0).Addr())
	db, r := open(t, g.primary, Config{
		Replicas: DSNs(testbed.DSN(proxy.Addr(), g.name)), Pool: Pool{Min: -1}, Logger: quiet(),
		// The probes do not notice first.
		MaxLag: AnyStaleness, Probe: Probe{Interval: time.Minute, Timeout: 10 * time.Second},
	})
	must(t, r.Ready(deadline(t)))
	begin := func() bool {
		t.Helper()
		tx := db.WithContext(inScope(deadline(t), "tx")).Begin(&sql.TxOptions{ReadOnly: true})
		must(t, tx.Error)
		defer tx.Rollback()
		return recovering(t, tx)
	}
	eventually(t, "the replica to be used", func() bool {
		r.primary().wake()
		r.replicas()[0].wake()
		return begin()
	})
	proxy.Cut()
	if begin() {
		t.Error("a replica that is cut off answered")
	}
	for _, n := range r.Nodes() {
		if n.Name == "replica1" && (n.Up || n.Ejections != 1 || n.ConnectionErrors == 0) {
			t.Errorf("%+v", n)
		}
		if n.Primary && n.Decisions["retry"] != 1 {
			t.Errorf("%+v", n)
		}
	}
}
