package resolver

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// A standby that restarts replays its WAL again from some earlier point, and can
// serve reads that are behind what it has shown. Whoever relies on the node
// itself must know of it at once, not with the next probe: so each new
// connection of the pool, of which a restart leaves none, first asks whose it
// is. A server that lost its sessions in a crash of one of them, and recovered,
// goes on under the same name; it is known by the end of the probe's connection.

var errRestarted = errors.New("resolver: the server has restarted, or another one has its address")

// sameServer returns what a new connection to n must pass: it must lead to the
// run of the server that the probe watches.
func (r *Resolver) sameServer(n *node) func(ctx context.Context, c *pgconn.PgConn) error {
	return func(ctx context.Context, c *pgconn.PgConn) error {
		want := n.boot.Load()
		if want == 0 {
			return nil // not known yet
		}
		results, err := c.Exec(ctx, "SELECT "+bootTime).ReadAll()
		if err != nil {
			return err
		}
		if len(results) != 1 || len(results[0].Rows) != 1 {
			return fmt.Errorf("resolver: %q answers the question when it started with nothing", n.name)
		}
		got, err := strconv.ParseInt(string(results[0].Rows[0][0]), 10, 64)
		if err != nil {
			return fmt.Errorf("resolver: when %q started: %w", n.name, err)
		}
		if got == want || got == n.boot.Load() {
			return nil
		}
		n.moved.Store(true)
		n.run.Add(1)
		n.wake()
		return errRestarted
	}
}

// leaveServerOfBefore gives up the connections of n's pool when its probe has come to
// another server, or another run of it, than before: what that one says must not be
// believed of them. Those that a restart left are dead anyway; through a load
// balancer, or a name that means another server by now, they live on. What is under
// way on them was judged by what was known then, and runs to its end.
func (r *Resolver) leaveServerOfBefore(n *node, id identity) {
	r.mu.Lock()
	before := n.identity
	r.mu.Unlock()
	if before.boot == 0 || before.boot == id.boot && before.system == id.system {
		return
	}
	n.boot.Store(id.boot) // from here on none to the one before is let in
	n.run.Add(1)
	r.renew(n)
}
