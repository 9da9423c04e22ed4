package hook

import (
	"database/sql"

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
			r.Where, r.tx, r.Txn, r.Node = InTxn, p, p.txn, p.txn.Node
			return
		case *gorm.PreparedStmtDB:
			r.prepared, pool = true, p.ConnPool
		case *gorm.PreparedStmtTX:
			r.prepared, pool = true, p.Tx
		case stmtPool:
			r.orig, pool = p.r.orig, p.r.orig
		case stmtTx:
			r.orig, pool = p.r.orig, p.r.orig
		case *sql.Conn, *Conn:
			r.Where, r.Node = Pinned, h.primary
			return
		default:
			r.Where = Foreign
			return
		}
	}
}

// target is the pool of a statement that is not routed.
func (r *Record) target() gorm.ConnPool {
	if r.Where == InTxn {
		return r.tx.target(r.prepared)
	}
	return r.orig
}

// dbresolverPresent reports whether a pool that is not ours was put on the
// statement by a dbresolver that was used after us.
func (h *Hub) dbresolverPresent(db *gorm.DB) bool {
	_, ok := db.Plugins[dbresolverName]
	return ok
}
