package cachehook

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// pending is a write between BeforeCommit and its outcome.
type pending struct {
	writer string // its name among the marks
	tags   []string
	cells  []*cell
	by     *catalog // that says so, or nil
	schema bool
	marked bool // Redis was asked to mark, whether or not it answered

	left *omission // the roster knows of it; nil: it does not

	mu    sync.Mutex // guards timer against ended
	timer *time.Timer
	ended bool
}

// pendingKey is where a transaction keeps it.
type pendingKey struct{ c *Cache }

// prepare notes what the statements change. It does not wait for the catalogue: the
// transaction may hold the only connection.
func (c *Cache) prepare(t *hook.Txn, writes []*sqltext.Statement) *pending {
	p := &pending{by: c.catalog.get(context.Background(), false)}
	what := written{statements: writes, exact: !t.Foreign && !t.Pinned && !t.Session()}
	what.rows, _ = t.Value(rowsKey{c}).(*writtenRows)
	var why string
	p.tags, p.schema, why = p.by.writeTags(what, c.cfg.Affects)
	c.noteEmptied(why)
	if what.rows != nil && !t.Autocommit && !what.rows.goBy(p.by) && !slices.Contains(p.tags, everyTag) {
		p.tags = append(p.tags, everyTag) // a statement may have run by an earlier schema
	}
	return p
}

// hold begins a write of the tags in this process: nothing is served or filled
// under them until release.
func (c *Cache) hold(tags []string) []*cell {
	cells := make([]*cell, len(tags))
	for i, tag := range tags {
		cells[i] = c.mirror.cell(tag, c.pins(tag))
		cells[i].busy.Add(1)
		if !c.mirror.local {
			c.mirror.forget(cells[i])
		}
	}
	return cells
}

// pins reports whether a tag's cell stays for good.
func (c *Cache) pins(tag string) bool {
	if tag == everyTag || tag == schemaTag || tag == serverTag {
		return true
	}
	i := strings.Index(tag, rowMark)
	return strings.HasPrefix(tag, tablePrefix) && (i < 0 || i == len(tag)-1)
}

// release ends a hold. What was read before is void; where this process is the
// truth the tags get their new stamps here.
func (c *Cache) release(cells []*cell, changed bool) {
	for _, cell := range cells {
		if changed || !c.mirror.local {
			c.mirror.forget(cell)
		}
		cell.busy.Add(-1)
	}
}

// beforeCommit marks what a transaction has written.
func (c *Cache) beforeCommit(ctx context.Context, t *hook.Txn) error {
	crash("before-mark")
	defer crash("after-mark")
	p := c.prepare(t, t.Writes())
	if c.roster != nil && !t.Foreign && !(t.Autocommit && t.Pinned) {
		p.tags, p.left = c.roster.omit(p.tags, p.by)
	}
	p.cells = c.hold(p.tags)
	t.SetValue(pendingKey{c}, p)
	if c.store == nil || len(p.tags) == 0 || c.off&markSafeguard != 0 {
		return nil
	}
	p.writer = mint().String()
	p.marked = true
	if err := c.mark(context.WithoutCancel(ctx), p); err != nil {
		if c.cfg.OnRedisFailure == FailWrite {
			return fmt.Errorf("%w: %w", ErrInvalidation, err)
		}
		return nil
	}
	p.mu.Lock()
	p.timer = time.AfterFunc(c.markTTL/2, func() { c.renew(p) })
	p.mu.Unlock()
	return nil
}

// mark marks what p changes: everything, when its catalogue is not the present
// schema's. Where the roster waits for p it need not be known so early.
func (c *Cache) mark(ctx context.Context, p *pending) error {
	sure := p.left != nil && p.left.sure
	saw, err := c.store.mark(ctx, p.tags, p.writer, !sure && looks(p.by, p.tags))
	if err != nil || p.by == nil || !saw.changed(p.by.schema) {
		return err
	}
	c.outdated(p.by)
	p.tags, p.cells = append(p.tags, everyTag), append(p.cells, c.hold(allTags)...)
	_, err = c.store.mark(ctx, allTags, p.writer, false)
	return err
}

// renew sets the mark again while a slow COMMIT runs.
func (c *Cache) renew(p *pending) {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended {
		return
	}
	_, _ = c.store.mark(context.Background(), p.tags, p.writer, false) // counted by the guard
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.timer.Reset(c.markTTL / 2)
	}
}

func (p *pending) stopRenewing() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// transactionEnded gives the written tags new stamps, unless the transaction was
// certainly rolled back.
func (c *Cache) transactionEnded(t *hook.Txn, outcome hook.TxnOutcome) {
	p, _ := t.Value(pendingKey{c}).(*pending)
	t.SetValue(pendingKey{c}, (*pending)(nil))
	if outcome == hook.RolledBack {
		if p != nil {
			c.rolledBack(p)
		}
		return
	}
	crash("after-commit")
	defer crash("after-stamp")
	if p == nil {
		// A commit that nobody was asked about before: its context had ended.
		writes := t.Writes()
		if len(writes) == 0 {
			return
		}
		p = c.prepare(t, writes)
		p.cells = c.hold(p.tags)
	}
	p.stopRenewing()
	if p.schema {
		c.catalog.forget()
	}
	by := p.by
	if p.left != nil && c.tellAfterAll(p) {
		by = nil // nobody has stored anything by a later schema meanwhile
	}
	if t.Foreign || t.Autocommit && t.Pinned {
		c.doubtTags(p.tags, t.Over)
	}
	_ = c.bump(p.tags, p.writer, p.cells, by)
}

// tellAfterAll adds what was left out if somebody may have cached it since. It reports
// whether the roster has waited for the write to its end.
func (c *Cache) tellAfterAll(p *pending) (waited bool) {
	sound := c.roster.end(p.left)
	switch {
	case !sound:
		p.tags = append(p.tags, p.left.tags...)
		p.cells = append(p.cells, c.hold(p.left.tags)...)
	case len(p.tags) == 0:
		c.counts.untold.Add(1)
	}
	return sound && p.left.sure
}

func (c *Cache) rolledBack(p *pending) {
	p.stopRenewing()
	if p.left != nil {
		c.roster.end(p.left)
	}
	if p.marked {
		// A mark that stays runs out, and costs its tags a new stamp.
		_ = c.store.unmark(context.Background(), p.tags, p.writer)
	}
	c.release(p.cells, false)
}

var allTags = []string{everyTag}

// bump gives the tags new stamps: all, when by is not nil and the present schema is
// another one than that of by, the catalogue from which they come. What Redis does not
// take is kept back in this process, and said again until it does.
func (c *Cache) bump(tags []string, writer string, cells []*cell, by *catalog) error {
	if len(tags) == 0 {
		return nil
	}
	c.counts.invalidations.Add(uint64(len(tags)))
	c.tallies.invalidated(cells)
	if c.store != nil {
		saw, err := c.store.bump(context.Background(), tags, writer, looks(by, tags))
		if err != nil {
			c.pending.add(tags, cells, by)
			return err
		}
		if by != nil && saw.changed(by.schema) {
			c.outdated(by)
			defer c.release(cells, true)
			return c.bump(allTags, writer, c.hold(allTags), nil)
		}
	}
	c.release(cells, true)
	return nil
}

// invalidate is bump for those who ask for it by hand.
func (c *Cache) invalidate(tags []string, by *catalog) error {
	switch {
	case len(tags) == 0 || c.cfg.Disabled:
		return nil
	case c.closed.Load():
		if c.store == nil {
			return nil // nothing is left
		}
		return fmt.Errorf("%w: the cache is closed", ErrInvalidation)
	}
	if err := c.bump(tags, "", c.hold(tags), by); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidation, err)
	}
	return nil
}
