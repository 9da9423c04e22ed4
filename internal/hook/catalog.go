package hook

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

const (
	catalogTimeout = time.Second
	catalogBackoff = 10 * time.Second
)

// catalog knows which functions of the database are volatile. It is read from
// pg_proc at the first statement that calls a function which is no built-in,
// again after DDL, and by Reread.
type catalog struct {
	reading  chan struct{} // holds one value while somebody reads
	volatile atomic.Pointer[map[string]bool]
	declared atomic.Pointer[map[string]bool]
	retry    atomic.Int64 // Unix nanoseconds before which a failed read is not tried again
}

// accessOf says what text needs of a node.
func (h *Hub) accessOf(ctx context.Context, text *sqltext.Statement, mayLoad bool) Access {
	access := h.accessOfText(ctx, text, mayLoad)
	if access == ReadOnly && h.acts(ctx, text, mayLoad) {
		return Write // as a volatile function of the same name
	}
	return access
}

// accessOfText is accessOf without what hides behind the names of views.
func (h *Hub) accessOfText(ctx context.Context, text *sqltext.Statement, mayLoad bool) Access {
	if len(text.UnknownFunctions) == 0 {
		switch {
		case text.ReadOnly():
			return ReadOnly
		case text.MayWrite():
			return Write
		}
		return NeedsPrimary
	}
	safe := func(string) bool { return true } // elsewhere functions do not write
	if h.root.Name() == "postgres" && !h.catalog.declares(text.UnknownFunctions) {
		volatile := h.catalog.functions(ctx, h.Primary(), mayLoad)
		safe = func(name string) bool {
			v, known := volatile[name]
			return known && !v
		}
	}
	if declared := h.catalog.declared.Load(); declared != nil {
		other := safe
		safe = func(name string) bool {
			if v, ok := (*declared)[name]; ok {
				return v
			}
			return other(name)
		}
	}
	switch {
	case text.ReadOnlyIf(safe):
		return ReadOnly
	case text.MayWrite():
		return Write
	}
	for _, f := range text.UnknownFunctions {
		if !safe(f) {
			return Write
		}
	}
	return NeedsPrimary
}

// Declare says of functions whether they may run on a standby, in place of the
// catalogue. It replaces what was declared before.
func (h *Hub) Declare(safe map[string]bool) { h.catalog.declared.Store(&safe) }

// declares reports whether all of names were declared.
func (c *catalog) declares(names []string) bool {
	declared := c.declared.Load()
	if declared == nil {
		return false
	}
	for _, name := range names {
		if _, ok := (*declared)[name]; !ok {
			return false
		}
	}
	return true
}

// functions returns the functions outside pg_catalog's well-known ones, by name
// and by schema.name, and whether they are volatile. It is nil, and so every
// function volatile, while the catalogue cannot be read.
func (c *catalog) functions(ctx context.Context, primary *Node, mayLoad bool) map[string]bool {
	if m := c.volatile.Load(); m != nil {
		return *m
	}
	// Inside a transaction the pool may have no second connection to give.
	if !mayLoad || time.Now().UnixNano() < c.retry.Load() {
		return nil
	}
	select {
	case c.reading <- struct{}{}:
		defer func() { <-c.reading }()
	case <-ctx.Done():
		return nil
	}
	if m := c.volatile.Load(); m != nil {
		return *m
	}
	if time.Now().UnixNano() < c.retry.Load() {
		return nil // somebody else has just failed
	}
	m, err := readFunctions(ctx, primary)
	if err != nil {
		if ctx.Err() == nil {
			c.retry.Store(time.Now().Add(catalogBackoff).UnixNano())
		}
		return nil
	}
	c.volatile.Store(&m)
	return m
}

// Reread reads anew what is known of the database's functions and views, if it was
// asked for before: other programs change them, and nobody tells. What cannot be read
// stays as it was. It blocks for a second at most for each question.
func (h *Hub) Reread(ctx context.Context) error {
	if old := h.catalog.volatile.Load(); old != nil {
		m, err := readFunctions(ctx, h.Primary())
		if err != nil {
			return fmt.Errorf("hook: read the functions: %w", err)
		}
		h.catalog.volatile.CompareAndSwap(old, &m) // unless DDL of ours came between
	}
	if old := h.views.acting.Load(); old != nil {
		m, err := h.readViews(ctx)
		if err != nil {
			return fmt.Errorf("hook: read the views: %w", err)
		}
		h.views.acting.CompareAndSwap(old, m)
	}
	return nil
}

// forget makes the next statement with an unknown function read again.
func (c *catalog) forget() { c.volatile.Store(nil) }

func readFunctions(ctx context.Context, primary *Node) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	rows, err := primary.physical.QueryContext(ctx, `SELECT n.nspname, p.proname, bool_or(p.provolatile = 'v')
		FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace GROUP BY 1, 2`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	m := make(map[string]bool)
	for rows.Next() {
		var schema, name string
		var volatile bool
		if err := rows.Scan(&schema, &name, &volatile); err != nil {
			return nil, err
		}
		m[schema+"."+name] = volatile
		m[name] = m[name] || volatile // the search path is not known: one volatile namesake is enough
	}
	return m, rows.Err()
}

// afterDDL drops what DDL may have made stale: plans, and what is known of
// functions.
func (h *Hub) afterDDL() {
	h.catalog.forget()
	h.views.forget()
	h.mu.Lock()
	nodes := append([]*Node{h.home}, h.nodes...)
	h.mu.Unlock()
	for _, n := range nodes {
		n.Reset()
	}
}
