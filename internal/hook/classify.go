package hook

import (
	"database/sql"
	"reflect"

	"gorm.io/gorm"
)

// classify says on what kind of pool a statement is about to run, looking below
// GORM's statement caches (global and session ones nest) and below the statement
// pool of a callback that this statement runs inside of.
func (h *Hub) classify(r *Record, pool gorm.ConnPool) {
	for {
		switch p := pool.(type) {
		case *Pool:
			if p.hub == h {
				r.Where = Pooled
				return
			}
			r.Where = Foreign
			return
		case *Tx:
			if p == nil || p.hub != h {
				r.Where = Foreign
				return
			}
			r.Where, r.Txn, r.Node = InTxn, p.txn, p.node()
			return
		case *gorm.PreparedStmtDB:
			r.prepared, pool = true, p.ConnPool
		case *gorm.PreparedStmtTX:
			r.prepared, pool = true, p.Tx
		case stmtPool:
			r.orig, pool = p.r.orig, p.r.orig
		case stmtTx:
			r.orig, pool = p.r.orig, p.r.orig
		case explainPool:
			r.orig, pool = p.orig, p.orig
		case *sql.Conn:
			r.Where, r.Node = Pinned, h.Primary()
			return
		case *Conn:
			r.Where, r.Node = Pinned, h.Primary()
			return
		default:
			r.Where = Foreign
			h.classifyWrapped(r, pool)
			return
		}
	}
}

// classifyWrapped looks below a pool that another plugin put around ours on the
// statement, as sharding does: the statement still has to run through it. In a
// transaction of ours it belongs to that; outside, it comes back to our Pool,
// perhaps with another text, and is routed there.
func (h *Hub) classifyWrapped(r *Record, pool gorm.ConnPool) {
	switch p := belowWrapper(pool).(type) {
	case *Tx:
		if p != nil && p.hub == h {
			r.Where, r.Txn, r.Node = InTxn, p.txn, p.node()
			r.wrapped = true
		}
	case *Pool:
		r.wrapped = p.hub == h
	}
}

// belowWrapper returns the first pool of this package, of GORM or of
// database/sql below structs with a field ConnPool, or nil.
func belowWrapper(pool gorm.ConnPool) gorm.ConnPool {
	for range 4 { // deeper ones are not met
		switch p := pool.(type) {
		case nil, *Pool, *Tx, *sql.DB, *sql.Tx, *sql.Conn:
			return pool
		case *gorm.PreparedStmtDB:
			pool = p.ConnPool
			continue
		case *gorm.PreparedStmtTX:
			pool = p.Tx
			continue
		}
		v := reflect.Indirect(reflect.ValueOf(pool))
		if v.Kind() != reflect.Struct {
			return nil
		}
		f := v.FieldByName("ConnPool")
		if !f.IsValid() || !f.CanInterface() {
			return nil
		}
		pool, _ = f.Interface().(gorm.ConnPool)
	}
	return nil
}

// Held is the connection of a Pinned statement, nil for others.
func (r *Record) Held() *sql.Conn {
	if r.Where != Pinned {
		return nil
	}
	for pool := r.orig; ; {
		switch p := pool.(type) {
		case *gorm.PreparedStmtDB:
			pool = p.ConnPool
		case *gorm.PreparedStmtTX:
			pool = p.Tx
		case *sql.Conn:
			return p
		case *Conn:
			return p.Conn
		default:
			return nil
		}
	}
}

// target is the pool of a statement that is not routed.
func (r *Record) target() gorm.ConnPool {
	if r.Where == InTxn && !r.wrapped {
		return r.Txn.tx.target(r.prepared)
	}
	return r.orig
}

// conflict reports a dbresolver that was used after us. It is asked for each
// statement, and looks only when there are other plugins than before.
func (h *Hub) conflict(db *gorm.DB) error {
	n := int64(len(db.Plugins))
	if h.plugins.Load() == n {
		return nil
	}
	if _, ok := db.Plugins[dbresolverName]; ok {
		return ErrDBResolver
	}
	h.plugins.Store(n)
	return nil
}
