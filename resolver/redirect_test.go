package resolver

import (
	"errors"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/sqltext"
	"github.com/gorminfra/infra/internal/testbed"
)

func TestR12AWriteThatIsLostWhileItsRowsComeHasAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	g := newRig(t, c, nil)
	ctx := deadline(t)
	// The rows are sent, and then COMMIT waits for a standby that does not exist.
	must(t, c.Primary().Set(ctx, "synchronous_standby_names", "nobody"))
	done := make(chan error, 1)
	go func() {
		list := make([]item, 5000) // their keys are returned
		done <- g.db.Session(&gorm.Session{SkipDefaultTransaction: true}).WithContext(inScope(ctx, "rows")).Create(&list).Error
	}()
	eventually(t, "the write to be lost", func() bool {
		must(t, c.Primary().Exec(ctx, "", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND wait_event = 'SyncRep'", g.name))
		return len(done) > 0
	})
	must(t, c.Primary().Set(ctx, "synchronous_standby_names", ""))
	if err := <-done; !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("it gives %v", err)
	}
}

// newDemotion is a rig whose primary has become a standby of replica1. Its probes
func newDemotion(t *testing.T) (*rig, *testbed.Node) {
	t.Helper()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	g := newRig(t, c, func(cfg *Config) { cfg.Probe.Interval = 20 * time.Second; cfg.FailoverWait = 10 * time.Second })
	ctx := deadline(t)
	old, next := c.Primary(), c.Replica(0)
	must(t, old.StopFast())
	must(t, next.Promote(ctx))
	must(t, old.RestartAsStandby(ctx, next))
	if g.leader() != "primary" {
		t.Fatal("the failover was noticed before a write")
	}
	return g, next
}

func TestR12AWriteOnADemotedNodeIsRedirectedOnce(t *testing.T) {
	t.Parallel()
	g, next := newDemotion(t)
	ctx := deadline(t)
	bare := g.db.Session(&gorm.Session{SkipDefaultTransaction: true})
	must(t, bare.WithContext(inScope(ctx, "redirected")).Create(&item{ID: 3000}).Error)
	if g.leader() != "replica1" || g.node("replica1").Decisions["retry"] != 1 || g.ids(next)[3000] != 1 {
		t.Errorf("%q leads, decisions %v", g.leader(), g.node("replica1").Decisions)
	}
	eventually(t, "the old primary to serve", func() bool { return g.node("primary").Up })

	// A primary that refuses writes for another reason is asked once.
	must(t, next.Set(ctx, "default_transaction_read_only", "on"))
	var err error
	id := int64(3003)
	eventually(t, "a refusal", func() bool { // a server learns of a setting a little later
		id++
		err = bare.WithContext(inScope(ctx, "refused")).Create(&item{ID: id}).Error
		return err != nil
	})
	if d := g.node("primary").Decisions["retry"] + g.node("replica1").Decisions["retry"]; !isReadOnly(err) || d != 1 {
		t.Errorf("%v, %d retries", err, d)
	}
	must(t, next.Set(ctx, "default_transaction_read_only", "off"))
}

func TestR12AWriteInATransactionOnADemotedNodeIsRefused(t *testing.T) {
	t.Parallel()
	g, next := newDemotion(t)
	ctx := deadline(t)
	err := g.db.WithContext(inScope(ctx, "transaction")).Transaction(func(tx *gorm.DB) error {
		return tx.Create(&item{ID: 3001}).Error
	})
	if !isReadOnly(err) || g.ids(next)[3001] != 0 {
		t.Errorf("it gives %v", err)
	}
	// That was the sign, and the next one goes where it should.
	eventually(t, "the failover to be noticed", func() bool { return g.leader() == "replica1" })
	must(t, g.db.WithContext(inScope(ctx, "next")).Create(&item{ID: 3002}).Error)
	if g.ids(next)[3002] != 1 {
		t.Error("the next write is elsewhere")
	}
}

func TestR12WhatMayHaveRunInPartIsNotRedirected(t *testing.T) {
	t.Parallel()
	for text, whole := range map[string]bool{
		"INSERT INTO a VALUES (1)":                             true,
		"WITH x AS (DELETE FROM a RETURNING *) SELECT 1":       true,
		"SELECT nextval('s')":                                  true,
		"TRUNCATE a":                                           true,
		"SELECT 1; INSERT INTO a VALUES (1)":                   false,
		"COMMIT; INSERT INTO a VALUES (1)":                     false,
		"CALL p()":                                             false,
		"DO $$ BEGIN COMMIT; INSERT INTO a VALUES (1); END $$": false,
		"EXECUTE x":                                            false,
		"":                                                     false,
	} {
		if got := ranAsAWhole(sqltext.Analyze(text)); got != whole {
			t.Errorf("%q: %v", text, got)
		}
	}
	if ranAsAWhole(nil) {
		t.Error("nothing is a whole")
	}
}
