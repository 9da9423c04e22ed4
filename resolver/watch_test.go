package resolver

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorminfra/infra/internal/testbed"
)

// One who pools connections for us may have given the primary's to a standby.
func TestStandbyBehindAPrimarysConnectionTellsItsTimeline(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	for _, tt := range []struct {
		node    *testbed.Node
		standby bool
	}{{c.Replica(0), true}, {c.Primary(), false}} {
		cfg, err := pgx.ParseConfig(tt.node.DSN(""))
		must(t, err)
		w := newWatcher(cfg, nil, time.Minute)
		for round := range 3 {
			asked := 0
			_, rd, err := w.sample(deadline(t), func() { asked++ })
			must(t, err)
			if rd.standby != tt.standby || rd.timeline == 0 || rd.lsn == 0 || w.primary == tt.standby {
				t.Errorf("round %d: %+v, primary %v", round, rd, w.primary)
			}
			if again := tt.standby && round > 0; (asked == 2) != again {
				t.Errorf("round %d: asked %d times", round, asked)
			}
			w.primary = true
		}
		w.close()
	}
}
