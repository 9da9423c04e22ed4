package run

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorminfra/infra/internal/testbed"
)

// identity is what a Postgres says of itself that only a start or a promotion
// changes. The timeline of a standby follows that of its primary.
const identity = `SELECT CASE WHEN pg_is_in_recovery() THEN 'standby'
	ELSE 'primary of timeline ' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END || ' since ' || pg_postmaster_start_time()`

// Postgres makes nodes to be watched, each by a connection that stays.
func Postgres(nodes ...*testbed.Node) (watched []Watched) {
	for _, n := range nodes {
		var conn *pgx.Conn
		hangUp := func() {
			if conn != nil {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_ = conn.Close(ctx)
				conn = nil
			}
		}
		watched = append(watched, Watched{Name: n.Name(), Close: hangUp, Look: func(ctx context.Context) (says string, err error) {
			if conn == nil {
				if conn, err = n.Conn(ctx, ""); err != nil {
					conn = nil
					return "", fmt.Errorf("look at %s: %w", n.Name(), err)
				}
			}
			if err = conn.QueryRow(ctx, identity).Scan(&says); err != nil {
				hangUp()
			}
			return says, err
		}})
	}
	return watched
}
