package cached

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/cachehook"
)

const (
	readTimeout  = 3 * time.Second
	writeTimeout = 8 * time.Second
	// focusFor is how long all workers prefer one group.
	focusFor = 1500 * time.Millisecond
)

type (
	// Item is a row of the first cached table.
	Item struct {
		ID      uint16 `gorm:"primaryKey;autoIncrement:false"`
		Grp     int8
		Version uint32
		Writer  uint32
	}
	// Stock is a row of the second.
	Stock struct {
		ID      uint16 `gorm:"primaryKey;autoIncrement:false"`
		Grp     int8
		Version uint32
		Writer  uint32
	}
)

func (i Item) cell() cell  { return cell{i.ID, i.Grp, i.Version, i.Writer} }
func (s Stock) cell() cell { return cell{items + s.ID, s.Grp, s.Version, s.Writer} }

// joined is an item with its stock.
type joined struct {
	Item
	StockGrp     int8
	StockVersion uint32
	StockWriter  uint32
}

// session is a chain of work: in a scope, or of the whole process.
type session struct {
	w      *worker
	ctx    context.Context
	random *rand.Rand
	id     uint32 // 0: of the process
}

// scope begins a session of its own where the worker works in scopes.
func (w *worker) scope(ctx context.Context, random *rand.Rand) (s *session, end func()) {
	s = &session{w: w, ctx: ctx, random: random}
	if !w.cfg.Scoped {
		return s, func() {}
	}
	ctx, scope := w.plugin.Begin(ctx, "history")
	s.ctx, s.id = ctx, uint32(w.cfg.Inst)<<24|w.sessions.Add(1)
	return s, func() { scope.End() }
}

// readOn reads until ctx ends.
func (w *worker) readOn(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		s, end := w.scope(ctx, random)
		if w.cfg.Scoped && pace(w.pace.Load()) == calm && w.sowing() && random.IntN(8) == 0 {
			s.writeUnlessQuiet()
		}
		for n := 5 + random.IntN(60); n > 0 && ctx.Err() == nil; n-- {
			s.read(s.pick(), random.IntN(64) == 0 && pace(w.pace.Load()) != meet)
			if random.IntN(4) == 0 {
				s.wait(w.cfg.Pause)
			}
		}
		end()
	}
}

// wait waits for some time, at most so long.
func (s *session) wait(most time.Duration) {
	select {
	case <-s.ctx.Done():
	case <-time.After(time.Duration(s.random.Int64N(int64(most)))):
	}
}

// pick chooses a query, often of the group that all prefer at present. The others
// are each read seldom enough for some of their fills to come when a write lies
// so far behind that replicas have it.
func (s *session) pick() uint16 {
	group := s.group()
	switch n := s.random.IntN(20); {
	case n < 8: // an item by its key
		return group + groups*uint16(s.random.IntN(items/groups))
	case n < 12: // a stock
		return items + group + groups*uint16(s.random.IntN(stocks/groups))
	case n < 15:
		return firstItems + group
	case n < 16:
		return firstStock + group
	case n < 18 || !s.w.cfg.Leaves:
		return firstJoin + group
	}
	return s.pickLeaves(group)
}

// group chooses a group.
func (s *session) group() uint16 {
	if s.random.IntN(3) > 0 && pace(s.w.pace.Load()) != meet {
		return uint16(s.random.IntN(groups))
	}
	return uint16(s.w.clock.Now() / int64(focusFor) % groups)
}

// sweep reads everything, a few times.
func (w *worker) sweep(ctx context.Context) {
	s, end := w.scope(ctx, rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.cfg.Inst))))
	defer end()
	for range 3 {
		for q := range uint16(queries) {
			if q != viewRow && (w.cfg.Leaves || !ofLeaves(q)) {
				s.read(q, false)
			}
		}
	}
}

// read asks one query.
func (s *session) read(q uint16, skip bool) {
	w := s.w
	var t trace
	ctx, cancel := context.WithTimeout(context.WithValue(s.ctx, traceKey{}, &t), readTimeout)
	defer cancel()
	o := op{Session: s.id, Query: q, Kind: kindOf(q)}
	if skip {
		ctx = cachehook.Skip(ctx)
		o.Flags |= skipped
	}
	o.Start = w.clock.Now()
	err := s.answer(w.db.WithContext(ctx), &o)
	o.End = w.clock.Now()
	if err != nil && s.ctx.Err() != nil {
		return // the run is over
	}
	if err != nil {
		o.Status = failed
	}
	o.From = t.source()
	if t.node != "" && t.node != w.cfg.Nodes[0].Name {
		o.Flags |= standby
	}
	w.note(&o, err)
}

// answer runs o's query and notes what it shows.
func (s *session) answer(db *gorm.DB, o *op) error {
	q, group := o.Query, groupOf(o.Query)
	switch {
	case ofLeaves(q):
		return answerOfLeaves(db, o)
	case q < items:
		var i Item
		return one(db.Where("id = ?", q).Take(&i).Error, o, func() cell { return i.cell() })
	case q < firstLeaf:
		var st Stock
		return one(db.First(&st, q-items).Error, o, func() cell { return st.cell() })
	case q < firstStock:
		var found []Item
		err := db.Where("grp = ?", group).Order("id").Limit(listLimit).Find(&found).Error
		for _, i := range found {
			o.Cells = append(o.Cells, i.cell())
		}
		if len(found) == listLimit {
			o.Flags |= full
		}
		return err
	case q < firstJoin:
		var found []Stock
		err := db.Where("grp = ?", group).Order("version DESC").Find(&found).Error
		for _, st := range found {
			o.Cells = append(o.Cells, st.cell())
		}
		return err
	}
	var found []joined
	err := db.Model(&Item{}).
		Select("items.*, stocks.grp AS stock_grp, stocks.version AS stock_version, stocks.writer AS stock_writer").
		Joins("JOIN stocks ON stocks.id = items.id").Where("items.grp = ?", group).Order("items.id").Find(&found).Error
	for _, j := range found {
		o.Cells = append(o.Cells, j.cell(), Stock{j.ID, j.StockGrp, j.StockVersion, j.StockWriter}.cell())
	}
	return err
}

func one(err error, o *op, seen func() cell) error {
	switch {
	case errors.Is(err, gorm.ErrRecordNotFound):
		return nil
	case err == nil:
		o.Cells = []cell{seen()}
	}
	return err
}
