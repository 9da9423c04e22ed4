package resolver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// A standby that comes back replays again from an earlier point, and is asked
// before its probe knows of it: the session must notice all the same.
func TestRestartedStandbyIsNotTheNodeOfBefore(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	g := newRig(t, c, func(cfg *Config) {
		cfg.Pool.Min = -1
		// The probe sleeps over the restart.
		cfg.Probe = Probe{Interval: time.Minute, Timeout: 10 * time.Second}
		cfg.MaxLag = AnyStaleness
		cfg.Session.Key = keyA
	})
	g.allInUse()
	ctx := inScope(deadline(t), "session")
	if w := g.read(ctx, 1); !w.Standby {
		t.Fatal("the replica is not read")
	}
	token, err := g.r.Token(ctx)
	must(t, err)
	run := g.r.replicas()[0].run.Load()
	must(t, c.Replica(0).StopFast())
	must(t, c.Replica(0).Start(ctx))
	if w := g.read(ctx, 1); w.Standby {
		t.Error("a session reads from a standby that has restarted since")
	}
	if g.r.replicas()[0].run.Load() == run {
		t.Error("the restart was not noticed")
	}
	// Nor does a token speak of the new run.
	eventually(t, "the replica to be read again", func() bool {
		return g.read(inScope(ctx, "other"), 1).Standby || g.read(context.Background(), 1).Standby
	})
	if w := g.read(g.r.WithToken(inScope(context.Background(), "next"), token), 1); w.Standby {
		t.Error("a token of the run before lets the new one be read")
	}
}

// Positions at a page's border, with commits that are not waited for: a replica
// comes to the token although nothing more is written.
func TestR03TokensAtAPagesBorder(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1, Settings: map[string]string{
		// The WAL writer sleeps 25 times its delay when idle. A position that is not
		// flushed within a probe interval makes the probe write something itself.
		"synchronous_commit": "off", "autovacuum": "off", "checkpoint_timeout": "1h", "wal_writer_delay": "1ms",
	}})
	g := newRig(t, c, func(cfg *Config) {
		cfg.MaxLag = time.Hour
		cfg.Probe.Interval = 500 * time.Millisecond
		cfg.Session.Key = keyA
	})
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	conn, err := c.Primary().Conn(ctx, g.name)
	must(t, err)
	defer conn.Close(context.Background())
	var segment int64
	must(t, conn.QueryRow(ctx, "SELECT pg_size_bytes(current_setting('wal_segment_size'))").Scan(&segment))
	inserted := func() (at int64) {
		must(t, conn.QueryRow(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&at))
		return at
	}

	// border writes, moves the insert position to just behind a page's header,
	// and returns the token of then. It may stand there no more.
	border := func(unit, header int64, own *item) (text string, at int64) {
		for ctx.Err() == nil {
			sctx := inScope(ctx, "writer")
			must(t, g.db.WithContext(sctx).Create(own).Error)
			_, err := conn.Exec(ctx, fmt.Sprintf(fill, unit, header))
			must(t, err)
			var tok token
			for asked := false; !asked && ctx.Err() == nil; asked = !tok.primary {
				// On a busy machine the answer may come after a response's patience.
				g.r.sessionAt(sctx).note(g.r.now()) // or a sample from before would do
				text, err = g.r.Token(sctx)
				must(t, err)
				tok, err = decodeToken(text, [][]byte{keyA}, time.Now())
				must(t, err)
			}
			at = inserted()
			want := at - header
			if g.r.off&pageRule != 0 {
				want = at
			}
			if at%unit == header && tok.lsn == uint64(want) {
				return text, at
			}
			*own = item{N: own.N} // the server has written something of its own
		}
		t.Fatal("the position never stays at a border")
		return "", 0
	}
	// outcome says whether a replica served a read with the token while the
	// position stood still.
	outcome := func(t *testing.T, unit, header int64, patience time.Duration) (reached bool) {
		for range 40 {
			own := item{N: 5}
			text, at := border(unit, header, &own)
			for end := time.Now().Add(patience); time.Now().Before(end) && !reached; {
				w := g.read(g.r.WithToken(inScope(ctx, "reader"), text), own.ID)
				if w.N != own.N {
					t.Fatalf("read %d after writing %d", w.N, own.N)
				}
				reached = w.Standby
			}
			if inserted() == at {
				return reached
			}
			reached = false // the server has written something of its own
		}
		t.Fatal("the position never stands still")
		return false
	}
	for _, tt := range []struct {
		name         string
		unit, header int64
	}{{"short header", 8192, shortPageHeader}, {"long header", segment, longPageHeader}} {
		t.Run(tt.name, func(t *testing.T) {
			if !outcome(t, tt.unit, tt.header, time.Minute) {
				t.Error("no replica has what the token says")
			}
		})
	}
	t.Run("without the rule none ever has", func(t *testing.T) {
		g.without(pageRule)
		if outcome(t, 8192, shortPageHeader, 1200*time.Millisecond) {
			t.Error("a replica has it all the same: the test shows nothing")
		}
	})
}

// Messages that belong to no transaction leave nothing to be written behind them.
// Big ones (300 bytes leave one for pages' headers) up to the unit's end, small ones
// until one meets it: of lengths by chance, as any fixed row of them can pass by
// every unit's end at the same distance.
const fill = `DO $$ DECLARE unit bigint := %d; header bigint := %d; at bigint; rest bigint;
BEGIN
	FOR i IN 1..1000000 LOOP
		at := pg_current_wal_insert_lsn() - '0/0';
		EXIT WHEN at %% unit = header;
		rest := unit - at %% unit;
		IF rest > 20000 THEN
			PERFORM pg_logical_emit_message(false, 'x', repeat('a', (rest - rest / 300 - 12000)::int));
		ELSE
			PERFORM pg_logical_emit_message(false, 'x', repeat('a', 8 * (random() * 5)::int));
		END IF;
	END LOOP;
END $$`

func TestR04CommitThatRollsBackMakesNoToken(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Session.Key = keyA })
	g.allInUse()
	ctx := inScope(deadline(t), "request")
	tx := g.db.WithContext(ctx).Begin()
	must(t, tx.Create(&item{N: 1}).Error)
	if err := tx.Exec("SELECT 1/0").Error; err == nil {
		t.Fatal("division by zero")
	}
	err := tx.Commit().Error
	if err == nil || !strings.Contains(err.Error(), "rollback") {
		t.Errorf("COMMIT of a failed transaction: %v", err)
	}
	if floorOf(ctx, g.r) != 0 {
		t.Error("what was rolled back counts as a write")
	}
}

func TestR04CaptureThatFailsPinsToThePrimary(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, func(cfg *Config) { cfg.Session.Key = keyA })
	g.allInUse()
	proxy := testbed.NewProxy(t, c.Primary().Addr())
	db, r := open(t, testbed.DSN(proxy.Addr(), g.name), Config{
		Replicas: DSNs(g.nodes...), MaxLag: time.Hour, Pool: Pool{Max: 4, Min: -1}, Logger: quiet(),
		Probe:   Probe{Interval: time.Minute, Timeout: 10 * time.Second},
		Session: Session{Key: keyA},
	})
	must(t, r.Ready(deadline(t)))
	ctx := inScope(deadline(t), "writer")
	own := item{N: 7}
	must(t, db.WithContext(ctx).Create(&own).Error)
	proxy.Blackhole()
	began := time.Now()
	text, err := r.Token(ctx)
	took := time.Since(began)
	must(t, err)
	must(t, proxy.Restore())
	if took > time.Second {
		t.Errorf("the response waited %v", took)
	}
	tok, err := decodeToken(text, [][]byte{keyA}, time.Now())
	must(t, err)
	if !tok.primary {
		t.Errorf("the position could not be asked for, and the token says %+v", tok)
	}
	for range 5 {
		if w := g.read(g.r.WithToken(inScope(deadline(t), "reader"), text), own.ID); w.Standby || w.N != own.N {
			t.Errorf("read %d on a replica: %v", w.N, w.Standby)
		}
	}
	if w := g.read(inScope(deadline(t), "stranger"), 1); !w.Standby {
		t.Error("a stranger is held to the primary")
	}
}
