package hook

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

// views knows what does more than read without a text showing it: views that call a
// volatile function, take a lock, or read such a view; and what calls such a
// function by another notation, see hidden.go. They are read from the catalogue at the first statement,
// again after DDL, and by Reread; while they cannot be read, none is known.
type views struct {
	reading chan struct{} // holds one value while somebody reads
	acting  atomic.Pointer[acting]
	retry   atomic.Int64 // Unix nanoseconds before which a failed read is not tried again
}

// acting is what views knows.
type acting struct {
	views  map[string]bool // by name and by schema.name
	hidden []hidden
}

// acts reports whether text does more than read, by a view that it reads or by
// what it hides.
func (h *Hub) acts(ctx context.Context, text *sqltext.Statement, mayLoad bool) bool {
	if st := h.stages.Load(); len(text.Reads) == 0 || text.System || st.router == nil && st.server == nil || h.root.Name() != "postgres" {
		return false // nothing depends on it
	}
	acting := h.views.load(ctx, h, mayLoad)
	if acting == nil {
		return false
	}
	if len(acting.views) > 0 {
		for _, t := range text.Reads {
			if acting.views[t.String()] {
				return true
			}
		}
	}
	return hides(acting.hidden, text)
}

func (v *views) load(ctx context.Context, h *Hub, mayLoad bool) *acting {
	if m := v.acting.Load(); m != nil {
		return m
	}
	// Inside a transaction the pool may have no second connection to give.
	if !mayLoad || time.Now().UnixNano() < v.retry.Load() {
		return nil
	}
	select {
	case v.reading <- struct{}{}:
		defer func() { <-v.reading }()
	case <-ctx.Done():
		return nil
	}
	if m := v.acting.Load(); m != nil {
		return m
	}
	if time.Now().UnixNano() < v.retry.Load() {
		return nil // somebody else has just failed
	}
	m, err := h.readViews(ctx)
	if err != nil {
		if ctx.Err() == nil {
			v.retry.Store(time.Now().Add(catalogBackoff).UnixNano())
		}
		return nil
	}
	v.acting.Store(m)
	return m
}

// forget makes the next statement read again.
func (v *views) forget() { v.acting.Store(nil) }

// view is one view of the catalogue.
type view struct {
	schema, name string
	text         *sqltext.Statement
}

// readViews returns what acts. The search path is not known: one acting namesake
// is enough.
func (h *Hub) readViews(ctx context.Context) (*acting, error) {
	all, err := h.listViews(ctx)
	if err != nil {
		return nil, err
	}
	hidden, err := h.listHidden(ctx)
	if err != nil {
		return nil, err
	}
	views := make(map[string]bool)
	for grown := true; grown; { // until no view reads one that was found last
		grown = false
		for _, v := range all {
			full := v.schema + "." + v.name
			if views[full] || !h.viewActs(ctx, v.text, views, hidden) {
				continue
			}
			views[full], views[v.name], grown = true, true, true
		}
	}
	return &acting{views, hidden}, nil
}

func (h *Hub) viewActs(ctx context.Context, text *sqltext.Statement, views map[string]bool, hidden []hidden) bool {
	if h.accessOfText(ctx, text, true) != ReadOnly || hides(hidden, text) {
		return true
	}
	for _, t := range text.Reads {
		if views[t.String()] {
			return true
		}
	}
	return false
}

func (h *Hub) listViews(ctx context.Context) (all []view, err error) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	rows, err := h.Primary().physical.QueryContext(ctx, `SELECT n.nspname, c.relname, pg_catalog.pg_get_viewdef(c.oid)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var v view
		var text string
		if err := rows.Scan(&v.schema, &v.name, &text); err != nil {
			return nil, err
		}
		v.text = sqltext.Parse(text)
		all = append(all, v)
	}
	return all, rows.Err()
}
