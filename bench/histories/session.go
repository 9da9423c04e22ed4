package main

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorminfra/infra/resolver"
)

const (
	readTimeout  = 2 * time.Second
	writeTimeout = 5 * time.Second
)

// session is a chain of work that must see its own writes.
type session struct {
	w      *worker
	ctx    context.Context
	random *rand.Rand
	id     uint64
	flags  uint8
	cells  []uint32 // with an acknowledged write of this session
}

func (w *worker) runSessions(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		h := handover{}
		select {
		case h = <-w.arrivals:
		default:
			h.ID = w.newID()
		}
		for scopes := 1 + random.IntN(3); scopes > 0 && ctx.Err() == nil; scopes-- {
			if h = w.runScope(ctx, random, h); h.Token == "" {
				break
			}
			if random.IntN(3) == 0 {
				if random.IntN(2) == 0 {
					w.say(answer{Did: "session", Session: &h})
				}
				break
			}
		}
	}
}

// runScope continues or begins a session in a scope of its own, and returns it to
// be continued elsewhere.
func (w *worker) runScope(ctx context.Context, random *rand.Rand, h handover) handover {
	ctx, scope := w.plugin.Begin(ctx, "history")
	defer scope.End()
	s := &session{w: w, ctx: ctx, random: random, id: h.ID, cells: h.Cells}
	if h.Token != "" {
		s.flags |= carried
		s.ctx = w.withToken(ctx, h.Token)
		s.reads(random.IntN(10)) // the token alone must do
	}
	for bursts := 1 + random.IntN(2); bursts > 0 && ctx.Err() == nil; bursts-- {
		s.write()
		if s.random.IntN(4) == 0 {
			s.write()
		}
		s.reads(1 + random.IntN(20))
		// With a pause a probe frees the session, without one its own reads do.
		if s.random.IntN(4) > 0 {
			s.think()
		}
		s.reads(5 + random.IntN(200))
	}
	return handover{ID: s.id, Cells: s.cells, Token: w.tokenOf(s.ctx)}
}

// think lets some probes pass.
func (s *session) think() {
	select {
	case <-s.ctx.Done():
	case <-time.After(time.Duration(s.random.Int64N(int64(4 * s.w.cfg.Interval)))):
	}
}

// runScopeless lets the first slot write now and then, and all of them read: a
// write of anybody in the process binds everybody in it.
func (w *worker) runScopeless(ctx context.Context, slot int, random *rand.Rand) {
	s := &session{w: w, ctx: ctx, random: random, id: uint64(w.cfg.Index + 1), flags: scopeless}
	for ctx.Err() == nil {
		if slot == 0 {
			for range 1 + random.IntN(3) {
				s.write()
			}
			if len(s.cells) > 16 {
				s.cells = slices.Clone(s.cells[len(s.cells)-16:])
			}
			cells := slices.Clone(s.cells)
			w.recent.Store(&cells)
		} else if cells := w.recent.Load(); cells != nil {
			s.cells = *cells
		}
		for end := time.Now().Add(time.Duration(random.Int64N(int64(20 * w.cfg.Interval)))); time.Now().Before(end) && ctx.Err() == nil; {
			s.reads(5)
		}
	}
}

// reads reads n times, mostly what the session wrote, sometimes two at once.
func (s *session) reads(n int) {
	for ; n > 0 && s.ctx.Err() == nil; n-- {
		if s.random.IntN(16) > 0 {
			s.read(s.pick(), s.bound(), s.random.IntN(24) == 0)
			continue
		}
		var wg sync.WaitGroup
		for range 2 {
			cell, bound := s.pick(), s.bound()
			wg.Add(1)
			go func() {
				defer wg.Done()
				s.read(cell, bound, false)
			}()
		}
		wg.Wait()
	}
}

// pick chooses a cell to read.
func (s *session) pick() uint32 {
	if len(s.cells) > 0 && s.random.IntN(8) > 0 {
		return s.cells[s.random.IntN(len(s.cells))]
	}
	return uint32(s.random.IntN(s.w.cfg.Cells))
}

// bound chooses how old the answer may be: 0 for what the config says.
func (s *session) bound() time.Duration {
	switch s.random.IntN(8) {
	case 0:
		return resolver.AnyStaleness
	case 1:
		return 3 * s.w.cfg.Interval
	}
	return 0
}

// seen is a row as read, with the server's own word on who it is.
type seen struct {
	Version int64
	Writer  int64
	Node    string
	Standby bool
}

const seenColumns = "version, writer, current_setting('cluster_name') AS node, pg_is_in_recovery() AS standby"

// read reads one cell.
func (s *session) read(cell uint32, bound time.Duration, readOnlyTx bool) {
	s.w.gate.RLock()
	defer s.w.gate.RUnlock()
	s.readNow(cell, bound, readOnlyTx)
}

// readNow is read while the caller holds the gate. It reports whether a standby
// served it.
func (s *session) readNow(cell uint32, bound time.Duration, readOnlyTx bool) bool {
	w := s.w
	ctx, cancel := context.WithTimeout(s.ctx, readTimeout)
	defer cancel()
	o := op{Session: s.id, Cell: cell, Kind: kindRead, Flags: s.flags, Bound: int64(w.cfg.MaxLag)}
	if bound > 0 {
		ctx = resolver.MaxStaleness(ctx, bound)
		o.Bound = int64(bound)
	}
	if bound == resolver.AnyStaleness {
		o.Bound = 0
	}
	var row seen
	query := func(db *gorm.DB) error {
		return db.Model(&Cell{}).Select(seenColumns).Where("id = ?", cell).Take(&row).Error
	}
	o.Start = w.clock.Now()
	var err error
	if readOnlyTx {
		o.Kind = kindReadOnly
		err = w.db.WithContext(ctx).Transaction(query, &sql.TxOptions{ReadOnly: true})
	} else {
		err = query(w.db.WithContext(ctx))
	}
	o.End = w.clock.Now()
	if s.ctx.Err() != nil {
		return false // the run is over
	}
	o.Status = statusOf(err)
	o.Version, o.Writer, o.Node = row.Version, uint64(row.Writer), w.node[row.Node]
	if row.Standby {
		o.Flags |= standby
	}
	w.note(&o, err)
	if err == nil && slices.Contains(s.cells, cell) {
		w.readBacks.Add(1)
	}
	return err == nil && row.Standby
}

func statusOf(err error) status {
	switch {
	case err == nil:
		return done
	case errors.Is(err, resolver.ErrOutcomeUnknown):
		return unknown
	}
	return failed
}

// oneStatement writes a cell and its journal's entry, and commits by itself.
const oneStatement = `WITH moved AS (UPDATE cells SET version = version + 1, writer = ? WHERE id = ? RETURNING version)
	INSERT INTO journal (writer, cell, version) SELECT ?, ?, version FROM moved RETURNING version`

// write makes a new version of some cell, in one of three ways.
func (s *session) write() {
	w := s.w
	w.gate.RLock()
	defer w.gate.RUnlock()
	ctx, cancel := context.WithTimeout(s.ctx, writeTimeout)
	defer cancel()
	o := op{ID: w.newID(), Session: s.id, Cell: uint32(s.random.IntN(w.cfg.Cells)), Kind: kindWrite, Flags: s.flags}
	db := w.db.WithContext(ctx)
	var err error
	switch s.random.IntN(8) {
	case 0:
		o.Kind = kindRollback
		s.begin(&o)
		if err = s.transact(db, &o, func(*gorm.DB) error { return errRollback }); errors.Is(err, errRollback) {
			err = nil
		}
	case 1, 2:
		o.Kind = kindCommit
		s.begin(&o)
		err = s.transact(db, &o, nil)
	default:
		s.begin(&o)
		// Not Scan: that reads the rows behind the plugin's back, and tells of a
		// connection that breaks meanwhile in the driver's words.
		var made Cell
		err = db.Raw(oneStatement, o.ID, o.Cell, o.ID, o.Cell).Find(&made).Error
		o.Version = made.Version
	}
	o.End = w.clock.Now()
	s.wrote(&o, err)
}

// begin logs that a write begins: a process that is killed leaves no more of it.
func (s *session) begin(o *op) {
	o.Start = s.w.clock.Now()
	b := *o
	b.End, b.Status, b.Flags = b.Start, unknown, b.Flags|begun
	s.w.note(&b, nil)
}

var errRollback = errors.New("rolled back on purpose")

// wrote logs a write. Also one of which the run's end cut off the answer: it may
// have happened.
func (s *session) wrote(o *op, err error) {
	if o.Status = statusOf(err); s.ctx.Err() != nil && err != nil {
		o.Status = unknown
	}
	s.w.note(o, err)
	if o.Status == done && o.Kind.writes() && !slices.Contains(s.cells, o.Cell) {
		s.cells = append(slices.Clip(s.cells), o.Cell)
	}
}

// transact writes in a transaction and reads back in it. last runs before its
// end.
func (s *session) transact(db *gorm.DB, o *op, last func(*gorm.DB) error) error {
	return db.Transaction(func(tx *gorm.DB) error {
		var cell Cell
		err := tx.Model(&cell).Clauses(clause.Returning{Columns: []clause.Column{{Name: "version"}}}).Where("id = ?", o.Cell).
			UpdateColumns(map[string]any{"version": gorm.Expr("version + 1"), "writer": o.ID}).Error
		if err != nil {
			return err
		}
		o.Version = cell.Version
		if err := tx.Create(&Entry{Writer: int64(o.ID), Cell: o.Cell, Version: o.Version}).Error; err != nil {
			return err
		}
		if err := s.inside(tx, o); err != nil {
			return err
		}
		if last != nil {
			return last(tx)
		}
		return nil
	})
}

// inside reads in a transaction what it wrote.
func (s *session) inside(tx *gorm.DB, o *op) error {
	var row seen
	in := op{ID: o.ID, Session: s.id, Cell: o.Cell, Kind: kindInside, Flags: s.flags, Start: s.w.clock.Now()}
	err := tx.Model(&Cell{}).Select(seenColumns).Where("id = ?", o.Cell).Take(&row).Error
	in.End = s.w.clock.Now()
	in.Status, in.Version, in.Writer, in.Node = statusOf(err), row.Version, uint64(row.Writer), s.w.node[row.Node]
	if s.ctx.Err() == nil {
		s.w.note(&in, err)
	}
	return err
}
