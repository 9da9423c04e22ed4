package resolver

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/testbed"
)

// A server that has no connection to spare turns the probe away when that has lost
// its own. It lives, and the pool's connections work.
func TestR09AServerWithoutFreeSlotsIsNoDeadNode(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	g.close()
	ctx := deadline(t)
	role := fmt.Sprintf("few_%d", time.Now().UnixNano())
	must(t, c.Primary().Exec(ctx, g.name, "CREATE ROLE "+role+" LOGIN; GRANT ALL ON items, items_id_seq TO "+role))
	t.Cleanup(func() {
		must(t, c.Primary().Exec(deadline(t), g.name, "DROP OWNED BY "+role+"; DROP ROLE "+role))
	})
	must(t, c.WaitCaughtUp(ctx))
	as := func(dsn string) string { return strings.Replace(dsn, "postgres@", role+"@", 1) }
	db, err := gorm.Open(postgres.Open(as(g.primary)), &gorm.Config{Logger: logger.Discard})
	must(t, err)
	g.db, g.r = db, use(t, db, New(Config{
		Replicas: DSNs(as(g.nodes[0])), MaxLag: time.Hour, Logger: quiet(),
		Pool: Pool{Max: 4, Min: 4}, Probe: Probe{Interval: 20 * time.Millisecond, Timeout: 10 * time.Second},
	}))
	defer g.close()
	must(t, g.r.Ready(ctx))
	g.allInUse()
	eventually(t, "a full pool", func() bool { return g.node("primary").Pool.Idle == 4 })

	must(t, c.Primary().Exec(ctx, g.name, "ALTER ROLE "+role+" CONNECTION LIMIT 1"))
	must(t, c.WaitCaughtUp(ctx))
	g.endProbes(c.Primary())
	eventually(t, "the probe to be turned away", func() bool { return strings.Contains(g.node("primary").LastError, "53300") })
	from := g.node("primary").ProbeErrors
	eventually(t, "more probes than a dead primary is given", func() bool {
		if err := db.WithContext(ctx).Create(&item{N: 1}).Error; err != nil {
			t.Fatalf("a write while the primary takes no more connections: %v", err)
		}
		return g.node("primary").ProbeErrors > from+2*missesToBeGone
	})
	must(t, c.Primary().Exec(ctx, g.name, "ALTER ROLE "+role+" CONNECTION LIMIT -1"))
	eventually(t, "probes and reads as before", func() bool {
		return g.node("primary").LastError == "" && g.read(inScope(ctx, "reader"), 1).Standby
	})
}

func TestWhatAServerAnswersToAProbeIsNoSilence(t *testing.T) {
	t.Parallel()
	turnedAway := &pgconn.PgError{Severity: "FATAL", Code: "53300", Message: "sorry, too many clients already"}
	for name, tt := range map[string]struct {
		err                error
		atOnce, vacant, in bool // of the primary, of a replica
	}{
		"no slot":           {turnedAway, false, false, true},
		"another password":  {&pgconn.PgError{Severity: "FATAL", Code: "28P01"}, false, false, false},
		"no answer":         {context.DeadlineExceeded, false, true, false},
		"refused":           {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true, true, false},
		"shutting down":     {&pgconn.PgError{Severity: "FATAL", Code: "57P03"}, true, true, false},
		"a pooler's answer": {&pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "server login has been failing"}, false, true, false},
	} {
		c := newClocked(Config{})
		c.took(c.primary(), identity{}, reading{placed: true, lsn: 1, timeline: 1}, c.at)
		replica := c.replicas()[0]
		c.took(replica, identity{}, reading{placed: true, standby: true, lsn: 1, timeline: 1}, c.at)
		for n := range 2 * missesToBeGone {
			c.at++
			c.missed(c.primary(), probeFailure(tt.err), tt.err)
			c.missed(replica, probeFailure(tt.err), tt.err)
			if vacant := c.vacancy() != ""; n == 0 && vacant != tt.atOnce {
				t.Errorf("%s: the primary is gone at once: %v", name, vacant)
			}
		}
		if vacant := c.vacancy() != ""; vacant != tt.vacant {
			t.Errorf("%s: the primary is gone: %v", name, vacant)
		}
		if replica.health.in != tt.in {
			t.Errorf("%s: the replica is in rotation: %v", name, replica.health.in)
		}
	}
}
