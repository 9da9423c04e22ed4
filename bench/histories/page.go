package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
)

// A commit that ends exactly where a page of WAL ends leaves the insert position
// behind the next page's header, where no standby ever comes while nothing more
// is written. One commit in a few hundred does it by chance, and then the next
// one hides it; here it is forced, while nobody else writes.

const (
	walPage     = 8192
	walSegment  = 4 << 20 // as internal/testbed makes them
	pageHeader  = 24
	firstHeader = 40 // of a segment's first page

	// commitRecord is the size of the commit of a plain transaction: the header
	// of 24 bytes, 2 for the length, 8 for the time, aligned to 8.
	commitRecord = 40

	// messageRecord is that of an empty pg_logical_emit_message with an empty
	// prefix: 24 for the header, 24 and 1 for what it says of itself. Its length
	// takes 2 bytes up to 255, and 5 above.
	messageHeader = 24
	messageBody   = 25
)

// filler returns how long a message must be for a record of it to end where a
// commit's still fits into the page, when the insert position is at.
func filler(at uint64) int {
	room := int(walPage - at%walPage)
	size := room - commitRecord
	if size < messageHeader+2+messageBody {
		header := pageHeader
		if (at-at%walPage+walPage)%walSegment == 0 {
			header = firstHeader
		}
		size = room + walPage - header - commitRecord
	}
	if n := size - messageHeader - 2 - messageBody; n+messageBody <= 255 {
		return n
	}
	return size - messageHeader - 5 - messageBody
}

// atBoundary reports whether an insert position lies just behind a page's header.
func atBoundary(at uint64) bool {
	if at%walSegment < walPage {
		return at%walSegment == firstHeader
	}
	return at%walPage == pageHeader
}

// pageRounds forces commits to end where pages end, each of a session of its own,
// and reads back until a replica serves it. The caller has made all workers
// pause. It returns how many were hit.
func (w *worker) pageRounds(ctx context.Context, primary string, rounds int) (hits int, err error) {
	conn, err := pgx.Connect(ctx, primary)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	random := rand.New(rand.NewPCG(w.cfg.Seed, w.ids.Load()))
	for range rounds {
		hit, err := w.pageRound(ctx, conn, random)
		if err != nil {
			return hits, err
		}
		if hit {
			hits++
		}
	}
	return hits, nil
}

func (w *worker) pageRound(ctx context.Context, conn *pgx.Conn, random *rand.Rand) (hit bool, err error) {
	s := &session{w: w, random: random, id: w.newID()}
	ctx, scope := w.plugin.Begin(ctx, "page")
	defer scope.End()
	s.ctx = ctx
	o := op{ID: w.newID(), Session: s.id, Cell: uint32(random.IntN(w.cfg.Cells)), Kind: kindPage}
	s.begin(&o)
	err = s.transact(w.db.WithContext(ctx), &o, func(tx *gorm.DB) error {
		// Unless it is flushed at once the plugin's own commit may do it, which
		// moves the position.
		if err := tx.Exec("SET LOCAL synchronous_commit = on").Error; err != nil {
			return err
		}
		var at int64
		if err := tx.Raw("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&at).Error; err != nil {
			return err
		}
		return tx.Exec("SELECT pg_logical_emit_message(false, '', repeat('x', ?))", filler(uint64(at))).Error
	})
	o.End = w.clock.Now()
	at, errAt := insertPosition(ctx, conn)
	if err := errors.Join(err, errAt); err != nil {
		s.wrote(&o, err)
		return false, fmt.Errorf("page commit: %w", err)
	}
	if hit = atBoundary(at); hit {
		o.Flags |= boundary
	}
	s.cells = []uint32{o.Cell}
	patience := 20 * w.cfg.Interval
	served := false
	for end := time.Now().Add(patience); !served && time.Now().Before(end); time.Sleep(w.cfg.Interval / 50) {
		served = s.readNow(o.Cell, 0, false)
	}
	if !served && hit {
		// Whatever wrote meanwhile has freed it.
		now, err := insertPosition(ctx, conn)
		if err != nil {
			return hit, err
		}
		if now == at {
			o.Flags |= starved
		}
	}
	s.wrote(&o, nil)
	return hit, nil
}

func insertPosition(ctx context.Context, conn *pgx.Conn) (uint64, error) {
	var at int64
	err := conn.QueryRow(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&at)
	return uint64(at), err
}
