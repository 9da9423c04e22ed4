package resolver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// watcher is a node's probe. It belongs to the node's goroutine.
type watcher interface {
	// sample asks the node, connecting first where that is needed. ctx bounds
	// it. sent is called just before the question leaves.
	sample(ctx context.Context, sent func()) (identity, reading, error)
	// drop gives the connection up.
	drop()
	// close ends the watcher and what it started.
	close()
}

// The questions. All of them may be asked by anybody, but for pg_control_*,
// which some managed services withhold: then system and timeline stay untold.
const (
	identifyUnits = `SELECT pg_size_bytes(current_setting('wal_segment_size')), current_setting('wal_block_size')::bigint,
		(SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = current_database()), ` + bootTime
	bootTime       = `(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint`
	identifySystem = `SELECT system_identifier FROM pg_control_system()`

	// The insert position comes before the flush position, and with
	// synchronous_commit off a commit that has returned lies at or below insert
	// but not flush. pg_walfile_name knows a new timeline at once, where
	// pg_control_checkpoint still shows the old one for a while. A standby shows
	// the one that it follows in pg_control_checkpoint, which its next restart
	// point renews, in pg_control_recovery, which is renewed a little earlier,
	// and to those who may read pg_stat_wal_receiver there, at once.
	ask = `SELECT standby,
		(CASE WHEN standby THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_insert_lsn() END - '0/0')::bigint,
		(CASE WHEN standby THEN '0/0' ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint,
		CASE WHEN standby THEN %s ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END
		FROM (SELECT pg_is_in_recovery() AS standby) role`
)

var (
	askAll = fmt.Sprintf(ask, `greatest((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
		(SELECT max(received_tli) FROM pg_stat_wal_receiver))::bigint`)
	askLimited = fmt.Sprintf(ask, "0")
)

// pgWatcher watches a Postgres server on one connection.
type pgWatcher struct {
	db   *sql.DB
	ours bool // db has the one connection of this watcher, and is closed with it
	dial *dialer

	conn *sql.Conn
	pg   *pgconn.PgConn // below conn, to wait for its end; nil for other drivers
	id   identity

	withheld bool // pg_control_*
	primary  bool // at the last answer

	connects uint64
	followed uint32 // the highest timeline that this standby has shown

	stuck    uint64 // an insert position that was beyond flush
	stuckAt  time.Time
	patience time.Duration
}

// newWatcher opens a watcher with a connection of its own.
func newWatcher(cfg *pgx.ConnConfig, opts []stdlib.OptionOpenDB, patience time.Duration) *pgWatcher {
	cfg = cfg.Copy()
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // one round trip, nothing kept on the server
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "infra:probe"
	}
	d := &dialer{dial: cfg.DialFunc, open: map[net.Conn]struct{}{}}
	cfg.DialFunc = d.connect
	db := stdlib.OpenDB(*cfg, opts...)
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(-1)
	return &pgWatcher{db: db, ours: true, dial: d, patience: patience}
}

func (w *pgWatcher) sample(ctx context.Context, sent func()) (identity, reading, error) {
	if w.conn == nil {
		if err := w.connect(ctx); err != nil {
			w.drop()
			return identity{}, reading{}, err
		}
	}
	// What tells a standby's timeline is two thirds of the server's work, and a
	// primary has samples taken for each token. It becomes a standby by a restart
	// only, which ends the connection, but for one that others hold for us.
	query := askAll
	if w.withheld || w.primary {
		query = askLimited
	}
	var standby bool
	var lsn, flushed, timeline int64
	sent()
	if err := w.conn.QueryRowContext(ctx, query).Scan(&standby, &lsn, &flushed, &timeline); err != nil {
		w.drop()
		return identity{}, reading{}, err
	}
	if standby && w.primary {
		w.primary = false
		return w.sample(ctx, sent)
	}
	w.primary = !standby
	rd := reading{
		placed: true, standby: standby, flushed: uint64(flushed),
		lsn: uint64(lsn), timeline: uint32(timeline),
	}
	// What shows a standby's timeline goes with its WAL receiver. While its
	// process lives it cannot go back to an earlier one.
	if rd.standby {
		w.followed = max(w.followed, rd.timeline)
		rd.timeline = w.followed
	} else {
		w.followed = 0
	}
	if err := w.unstick(ctx, rd); err != nil {
		w.drop()
		return identity{}, reading{}, err
	}
	return w.id, rd, nil
}

// unstick makes the insert position reachable for standbys. A transaction that
// wrote and stays open on an otherwise idle primary holds it beyond the flush
// position for as long as nobody flushes. When flush has not come, within a
// whole interval, to where insert was, a commit of our own makes it do so.
func (w *pgWatcher) unstick(ctx context.Context, rd reading) error {
	inserted := w.id.units.normalize(rd.lsn)
	switch {
	case rd.standby || inserted <= rd.flushed:
		w.stuck = 0
		return nil
	case w.stuck == 0 || rd.flushed >= w.stuck:
		w.stuck, w.stuckAt = inserted, time.Now()
		return nil
	case time.Since(w.stuckAt) < w.patience:
		return nil
	}
	w.stuck = 0
	_, err := w.conn.ExecContext(ctx, "SELECT txid_current()")
	return err
}

func (w *pgWatcher) connect(ctx context.Context) (err error) {
	w.dial.allow(true)
	defer w.dial.allow(false)
	w.id, w.withheld, w.primary, w.stuck, w.followed = identity{}, false, false, 0, 0
	if w.conn, err = w.db.Conn(ctx); err != nil {
		return err
	}
	if w.ours {
		_ = w.conn.Raw(func(c any) error {
			if std, ok := c.(*stdlib.Conn); ok {
				w.pg = std.Conn().PgConn()
			}
			return nil
		})
	}
	var segment, block, database, system int64
	if err := w.conn.QueryRowContext(ctx, identifyUnits).Scan(&segment, &block, &database, &w.id.boot); err != nil {
		return err
	}
	w.connects++
	w.id.conn = w.connects
	w.id.units = walUnits{segment: uint64(segment), block: uint64(block)}
	w.id.database = uint32(database)
	switch err := w.conn.QueryRowContext(ctx, identifySystem).Scan(&system); {
	case err == nil:
		w.id.system = uint64(system)
	case withheld(err):
		w.withheld = true
	default:
		return err
	}
	return nil
}

// withheld reports whether the server does not let us call a function.
func withheld(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "42501" || pg.Code == "42883" || pg.Code == "0A000")
}

func (w *pgWatcher) drop() {
	// pgx would go on for up to 15 s in the background, trying to cancel the
	// query of a server that does not answer: with the socket closed it ends at
	// once, and can be waited for.
	w.dial.cut()
	if w.conn != nil {
		_ = w.conn.Close()
	}
	if w.pg != nil {
		<-w.pg.CleanupDone()
	}
	w.conn, w.pg = nil, nil
}

func (w *pgWatcher) close() {
	w.drop()
	if w.ours {
		_ = w.db.Close()
	}
}

// dialer knows the sockets that it made. Nil does nothing.
type dialer struct {
	dial pgconn.DialFunc

	mu      sync.Mutex // guards the rest
	allowed bool
	open    map[net.Conn]struct{}
}

func (d *dialer) allow(yes bool) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.allowed = yes
}

func (d *dialer) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	d.mu.Lock()
	allowed := d.allowed
	d.mu.Unlock()
	if !allowed {
		return nil, net.ErrClosed
	}
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[conn] = struct{}{}
	return conn, nil
}

// cut closes all sockets.
func (d *dialer) cut() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.open {
		_ = c.Close()
	}
	clear(d.open)
}

// pinger watches a database without WAL positions, on its pool.
type pinger struct{ db *sql.DB }

func (p pinger) sample(ctx context.Context, sent func()) (identity, reading, error) {
	sent()
	return identity{}, reading{}, p.db.PingContext(ctx)
}
func (pinger) drop()  {}
func (pinger) close() {}
