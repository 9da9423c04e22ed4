package cachehook

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// mirror is what this process knows of the tags' stamps. Without Redis it is
// the truth itself and every stamp in it is known. With Redis it is a copy, and
// whatever happens only ever makes a stamp in it unknown: a message, an own
// write, a new subscription. It learns stamps from answers of Redis alone, and
// only from those that nothing has overtaken.
type mirror struct {
	local bool // the truth: no Redis

	// epoch is that of the present subscription. A stamp learned under another
	// one is unknown, so that a flush costs one increment.
	epoch atomic.Uint64

	shards [mirrorShards]mirrorShard
}

const (
	mirrorShards = 16
	// maxLoose bounds the cells of tags that the user makes up, in each shard.
	maxLoose = 4096
)

type mirrorShard struct {
	mu    sync.RWMutex // guards the rest
	cells map[string]*cell
	loose int
}

// cell is one tag in the mirror.
type cell struct {
	tag string

	// busy counts the own writes between BeforeCommit and their stamp, and
	// those that could not tell Redis yet. While there is one nothing is served
	// or filled under the tag.
	busy atomic.Int32

	// dead: evicted. Messages do not reach the cell any more, so that nothing
	// in it counts.
	dead atomic.Bool

	pinned bool // a table's: never evicted
	listed bool // a table's: used only while the roster admits it; see roster.go

	// state is replaced, never changed: a pointer that was loaded before a
	// question to Redis and is still there after the answer says that nothing
	// touched the tag in between.
	state atomic.Pointer[tagState]

	// table is the table's own cell, of a row and of the whole; else nil.
	table *cell
	*pinnedState

	// replayed is the position in the WAL from which on a replica shows what
	// the stamp stands for.
	replayed atomic.Pointer[replayed]
}

// pinnedState is what only cells that stay need. There are few of them, and of
// others one for each row.
type pinnedState struct {
	// admitted is the roster's admission under which the tag may be used.
	admitted atomic.Uint32

	// rows, of a table's own cell, grows when its rows' stamps become unknown.
	rows atomic.Uint32

	// tally counts what concerns the table; nil: nobody has asked for it.
	tally atomic.Pointer[tally]
}

// notPinned is that of the other cells, and never written.
var notPinned pinnedState

// tagState is a stamp and the epoch it was learned under; epoch 0 is unknown.
type tagState struct {
	stamp stamp
	epoch uint64
}

type replayed struct {
	stamp stamp
	lsn   uint64
}

func newMirror(local bool) *mirror {
	m := &mirror{local: local}
	m.epoch.Store(1)
	for i := range m.shards {
		m.shards[i].cells = make(map[string]*cell)
	}
	return m
}

func (m *mirror) shard(tag string) *mirrorShard {
	h := uint32(2166136261) // FNV-1a
	for i := range len(tag) {
		h = (h ^ uint32(tag[i])) * 16777619
	}
	return &m.shards[h%mirrorShards]
}

// epochOf is the epoch under which a stamp of the cell would be known now.
func (m *mirror) epochOf(c *cell) uint64 {
	if c.table == nil {
		return m.epoch.Load()
	}
	return m.epoch.Load() + uint64(c.table.rows.Load())<<32
}

// cell returns the tag's cell, making it at the first call. pinned: it shall
// never be evicted.
func (m *mirror) cell(tag string, pinned bool) *cell {
	var table *cell
	if i := strings.Index(tag, rowMark); i >= 0 && !m.local {
		table = m.cell(tag[:i], true)
	}
	sh := m.shard(tag)
	sh.mu.RLock()
	c := sh.cells[tag]
	sh.mu.RUnlock()
	if c != nil && (c.pinned || !pinned) {
		return c
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c = sh.cells[tag]; c != nil && (c.pinned || !pinned) {
		return c
	}
	if c != nil { // loose until now: the new one starts afresh
		m.evict(sh, c)
	}
	c = &cell{tag: tag, pinned: pinned, listed: isTable(tag), table: table, pinnedState: &notPinned}
	if pinned {
		c.pinnedState = new(pinnedState)
	}
	m.forget(c)
	if !pinned {
		sh.makeRoom(m)
		sh.loose++
	}
	sh.cells[tag] = c
	return c
}

// rowCell returns the cell of a table's row.
func (m *mirror) rowCell(table, key string) *cell {
	var room [128]byte
	tag := append(append(append(room[:0], table...), rowMark...), key...)
	sh := m.shard(lent(tag))
	sh.mu.RLock()
	c := sh.cells[lent(tag)]
	sh.mu.RUnlock()
	if c != nil {
		return c
	}
	return m.cell(string(tag), false)
}

// makeRoom evicts some loose cell when there are too many; which one does not
// matter, its entries are read again.
func (sh *mirrorShard) makeRoom(m *mirror) {
	if sh.loose < maxLoose {
		return
	}
	for _, c := range sh.cells {
		if !c.pinned && c.busy.Load() == 0 {
			m.evict(sh, c)
			return
		}
	}
}

func (m *mirror) evict(sh *mirrorShard, c *cell) {
	c.dead.Store(true)
	delete(sh.cells, c.tag)
	sh.loose--
}

// forget makes the tag's stamp unknown. Where the mirror is the truth it mints
// a new one.
func (m *mirror) forget(c *cell) {
	if m.local {
		c.state.Store(&tagState{mint(), m.epoch.Load()})
		return
	}
	c.state.Store(&tagState{})
}

// forgetTag is forget for a tag that may have no cell, as messages name them.
func (m *mirror) forgetTag(tag string) {
	sh := m.shard(tag)
	sh.mu.RLock()
	c := sh.cells[tag]
	sh.mu.RUnlock()
	if c != nil {
		m.forget(c)
	}
}

// flush makes every stamp unknown, and voids every answer under way.
func (m *mirror) flush() { m.epoch.Add(1) }

// present returns the tag's stamp, and whether it is known.
func (m *mirror) present(c *cell) (stamp, bool) {
	s, known := m.known(c)
	return s.stamp, known
}

// known is present for who needs no copy.
func (m *mirror) known(c *cell) (*tagState, bool) {
	s := c.state.Load()
	return s, s.epoch == m.epochOf(c) && !c.dead.Load()
}

// question is what has to be remembered of a cell before Redis is asked.
type question struct {
	state *tagState
	epoch uint64
}

func (m *mirror) ask(c *cell) question { return question{c.state.Load(), m.epochOf(c)} }

// learn takes the answer, unless something touched the tag since the question.
// If that was another answer with another stamp, nobody can tell which is newer,
// and the tag is unknown: who was shown the newer must not be followed by one who
// is served the older.
func (m *mirror) learn(c *cell, q question, s stamp) {
	if q.state.stamp == s && q.state.epoch == q.epoch && c.state.Load() == q.state {
		return // known already
	}
	if c.state.CompareAndSwap(q.state, &tagState{s, q.epoch}) {
		return
	}
	if now := c.state.Load(); now.epoch != 0 && now.stamp != s {
		c.state.CompareAndSwap(now, &tagState{})
	}
}

// learnAll takes the answers to questions that were asked together. A write of a
// row changes the table's stamp too, and its message may still be on its way: who
// has seen the write through one of them shall not be served what is older through
// the other. So with a new stamp of a table what was known of its rows is not known
// any more, and with that of a row the table's.
func (m *mirror) learnAll(cells []*cell, questions []question, stamps []stamp) {
	for i, c := range cells {
		if questions[i].state.stamp == stamps[i] {
			continue
		}
		switch {
		case c.listed:
			m.forgetRows(c, cells, questions)
		case c.table != nil && len(c.tag) == len(c.table.tag)+len(rowMark):
			m.forgetRows(c.table, cells, questions)
		case c.table != nil && !slices.Contains(cells, c.table):
			m.forget(c.table)
		}
	}
	for i, c := range cells {
		m.learn(c, questions[i], stamps[i])
	}
}

// forgetRows makes the stamps of a table's rows unknown, but for those whose
// questions were asked together with the table's.
func (m *mirror) forgetRows(table *cell, cells []*cell, questions []question) {
	before := m.epoch.Load() + uint64(table.rows.Load())<<32
	if !table.rows.CompareAndSwap(uint32(before>>32), uint32(before>>32)+1) {
		return // another does it, and these questions are void
	}
	for i, c := range cells {
		if c.table == table && questions[i].epoch == before {
			questions[i].epoch += 1 << 32
		}
	}
}

// forgetWith makes a tag unknown that is marked, and what a write of it changes
// besides.
func (m *mirror) forgetWith(c *cell) {
	m.forget(c)
	table := c.table
	if c.listed {
		table = c
	}
	if table != nil {
		m.forget(table)
		table.rows.Add(1)
	}
}
