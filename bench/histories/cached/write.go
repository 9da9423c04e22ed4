package cached

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorminfra/infra/cachehook"
)

// Writers write in the first part of each season, all at the same time, and seldom
// in the rest of it, in which what is stale stays so.
const (
	season  = 3 * time.Second
	sowing  = 300 * time.Millisecond
	between = 30 * time.Millisecond // two writes, at most
)

// writeOn writes until ctx ends.
func (w *worker) writeOn(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		s, end := w.scope(ctx, random)
		for n := 1 + random.IntN(5); n > 0 && ctx.Err() == nil; n-- {
			s.writeUnlessQuiet()
			if pace(w.pace.Load()) != rush {
				s.wait(between)
			}
		}
		end()
		for pace(w.pace.Load()) != rush && ctx.Err() == nil && !w.sowing() && random.IntN(150) > 0 {
			s.wait(2 * between)
		}
	}
}

// sowing reports whether it is the time to write.
func (w *worker) sowing() bool { return time.Duration(w.clock.Now())%season < sowing }

func (s *session) writeUnlessQuiet() {
	s.w.writing.RLock()
	defer s.w.writing.RUnlock()
	if p := pace(s.w.pace.Load()); p == calm || p == rush {
		s.write()
	}
}

// write makes new versions of some rows, in one of several ways.
func (s *session) write() { _ = s.writeBy(s.someWrite) }

func (s *session) someWrite(db *gorm.DB, o *op) error {
	how := s.random.IntN(9)
	if how < 5 {
		o.Commit = o.Start
	}
	switch how {
	case 0, 1:
		return s.writeStock(db, o)
	case 2:
		return s.writeGroup(db, o)
	case 3, 4:
		return s.writeItem(db, o)
	case 5:
		return s.writeRoot(db, o)
	}
	return s.transact(db, o)
}

// writeBy writes in one way. What becomes of it is logged; the error is also
// returned.
func (s *session) writeBy(how func(db *gorm.DB, o *op) error) error {
	w := s.w
	o := op{ID: newID(w.cfg.Inst, w.writes.Add(1)), Session: s.id, Kind: kindWrite, Start: w.clock.Now()}
	// A process that is killed leaves no more than this.
	w.note(&op{ID: o.ID, Session: s.id, Kind: kindBegun, Start: o.Start}, nil)
	b := &begun{o.ID, s.id, o.Start, w.plugin.Cache().Stats().RedisErrors}
	ctx, cancel := context.WithTimeout(context.WithValue(s.ctx, writeKey{}, b), writeTimeout)
	defer cancel()
	db := w.db.WithContext(ctx)
	if s.random.IntN(2) == 0 {
		db = db.Session(&gorm.Session{SkipDefaultTransaction: false})
	}
	err := how(db, &o)
	o.End = w.clock.Now()
	o.Status = statusOf(err)
	if err != nil && o.Commit == 0 {
		o.Status = failed // COMMIT was not called
	}
	if w.redisErrors(b.errors) {
		o.Flags |= untold
	}
	w.note(&o, err)
	return err
}

// statusOf tells what is known after an error. Only the server's own word, or
// the cache's refusal, says that nothing happened.
func statusOf(err error) status {
	var server *pgconn.PgError
	switch {
	case err == nil:
		return done
	case errors.As(err, &server), errors.Is(err, cachehook.ErrInvalidation):
		return failed
	}
	return unknown
}

// nextID is that of the next statement of a write.
func (o *op) nextID(step int) uint32 { return o.ID + uint32(step) }

// writeStock writes a stock by its key.
func (s *session) writeStock(db *gorm.DB, o *op) error {
	c, err := s.bumpStock(db, o.nextID(1))
	if err == nil {
		o.Cells = []cell{c}
	}
	return err
}

func (s *session) bumpStock(db *gorm.DB, id uint32) (cell, error) {
	var st Stock
	number := s.group() + groups*uint16(s.random.IntN(stocks/groups))
	if s.random.IntN(4) == 0 { // it is always there
		st = Stock{ID: number, Grp: firstGroup(number)}
		err := db.Clauses(clause.Returning{}, clause.OnConflict{
			Columns:   []clause.Column{{Name: "id"}},
			DoUpdates: clause.Assignments(map[string]any{"version": gorm.Expr("stocks.version + 1"), "writer": id}),
		}).Create(&st).Error
		return st.cell(), err
	}
	err := db.Model(&st).Clauses(clause.Returning{}).Where("id = ?", number).
		UpdateColumns(map[string]any{"version": gorm.Expr("version + 1"), "writer": id}).Error
	return st.cell(), err
}

// writeGroup writes a group's stocks without naming them.
func (s *session) writeGroup(db *gorm.DB, o *op) error {
	id, group := o.nextID(1), s.group()
	var changed []Stock
	err := db.Raw("UPDATE stocks SET version = version + 1, writer = ? WHERE grp = ? RETURNING *", id, group).Scan(&changed).Error
	if err != nil {
		return err
	}
	for _, st := range changed {
		o.Cells = append(o.Cells, st.cell())
	}
	return nil
}

// writeItem makes an item's next version in one statement. Its head has the
// number, also while the item is deleted.
func (s *session) writeItem(db *gorm.DB, o *op) error {
	var i Item
	number, group := s.item()
	err := db.Raw(`WITH head AS (UPDATE heads SET version = version + 1, grp = ? WHERE id = ? RETURNING id, grp, version)
		INSERT INTO items (id, grp, version, writer) SELECT id, grp, version, ? FROM head
		ON CONFLICT (id) DO UPDATE SET grp = EXCLUDED.grp, version = EXCLUDED.version, writer = EXCLUDED.writer
		RETURNING *`, group, number, o.nextID(1)).Scan(&i).Error
	if err == nil {
		o.Cells = []cell{i.cell()}
	}
	return err
}

// item chooses an item, and a group that it is to be in.
func (s *session) item() (number uint16, group int8) {
	number = s.group() + groups*uint16(s.random.IntN(items/groups))
	if s.random.IntN(4) == 0 {
		return number, (firstGroup(number) + 1) % groups
	}
	return number, firstGroup(number)
}

var errBack = errors.New("rolled back on purpose")

// transact writes several rows in a transaction, some of them behind a savepoint
// that it may go back to, and reads in it what it wrote.
func (s *session) transact(db *gorm.DB, o *op) error {
	o.Kind = kindCommit
	roll := s.random.IntN(6) == 0
	if roll {
		o.Kind = kindRollback
	}
	step := 0
	err := db.Transaction(func(tx *gorm.DB) error {
		for n := 1 + s.random.IntN(3); n > 0; n-- {
			if err := s.step(tx, o, &step); err != nil {
				return err
			}
		}
		if s.random.IntN(3) == 0 {
			if err := s.behindSavepoint(tx, o, &step); err != nil {
				return err
			}
		}
		if roll {
			return errBack
		}
		o.Commit = s.w.clock.Now()
		return nil
	})
	if errors.Is(err, errBack) {
		return nil
	}
	return err
}

func (s *session) behindSavepoint(tx *gorm.DB, o *op, step *int) error {
	before := len(o.Cells)
	err := tx.Transaction(func(tx *gorm.DB) error {
		if err := s.step(tx, o, step); err != nil {
			return err
		}
		if s.random.IntN(2) == 0 {
			return errBack
		}
		return nil
	})
	if errors.Is(err, errBack) {
		o.Cells = o.Cells[:before]
		return nil
	}
	return err
}

// step writes one row in a transaction, and reads it back.
func (s *session) step(tx *gorm.DB, o *op, step *int) error {
	*step++
	id := o.nextID(*step)
	var c cell
	var err error
	if s.random.IntN(3) == 0 {
		c, err = s.bumpStock(tx, id)
	} else {
		c, err = s.changeItem(tx, id)
	}
	if err != nil {
		return err
	}
	o.Cells = append(o.Cells, c)
	in := op{ID: id, Session: s.id, Kind: kindInside, Query: c.Row, Start: s.w.clock.Now()}
	if err := s.answer(tx, &in); err != nil {
		return err
	}
	in.End = s.w.clock.Now()
	if len(in.Cells) == 0 { // deleted, as it ought to be, or not seen
		gone := cell{Row: c.Row, Grp: none}
		if c.Grp == none {
			gone = c
		}
		in.Cells = []cell{gone}
	}
	s.w.note(&in, nil)
	return nil
}

// changeItem puts, changes or deletes an item. Its head is locked first, in a
// statement of its own, so that the next one sees the item as the last writer
// left it.
func (s *session) changeItem(tx *gorm.DB, id uint32) (c cell, err error) {
	number, group := s.item()
	how := s.random.IntN(4)
	i := Item{ID: number}
	switch how {
	case 0: // put
	case 1:
		group = none
	default:
		group = -2 // it stays where it is
	}
	err = tx.Raw("UPDATE heads SET version = version + 1, grp = CASE WHEN ? = -2 THEN grp ELSE ? END WHERE id = ? RETURNING grp, version",
		group, group, number).Scan(&i).Error
	if err != nil {
		return c, err
	}
	i.ID, i.Writer = number, id
	switch how {
	case 0:
		err = tx.Clauses(clause.OnConflict{UpdateAll: true}).Create(&i).Error
	case 1:
		err = tx.Delete(&Item{}, number).Error
	default:
		err = tx.Model(&Item{}).Where("id = ?", number).UpdateColumns(map[string]any{"version": i.Version, "writer": id}).Error
	}
	return i.cell(), err
}
