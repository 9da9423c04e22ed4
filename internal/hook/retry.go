package hook

import (
	"context"
	"database/sql"

	"gorm.io/gorm"
)

// maxRetries bounds the attempts after the first. A statement is sent twice at
// most; the others are attempts that found no connection, as while a server
// shuts down: it goes on answering on the connections that it has, and takes no
// new ones.
const maxRetries = 3

// again repeats an attempt that ended with res and err for as long as the router
// names a node for it.
func again[T any](ctx context.Context, r *Record, res T, err error, run func(context.Context, gorm.ConnPool) (T, error)) (T, error) {
	for sent := 0; ; {
		if !notSent(err) {
			sent++
		}
		if sent == 2 || r.Retries >= maxRetries {
			return res, err
		}
		node := r.stages.router.Retry(ctx, r, err)
		if node == nil {
			return res, err
		}
		r.retryOn(node, err)
		r.sent = true
		if res, err = run(ctx, node.target(r.prepared)); err == nil {
			return res, nil
		}
	}
}

// beginAgain repeats a BEGIN that failed with err on node, before anything ran.
func beginAgain(ctx context.Context, st *stages, node *Node, opts *sql.TxOptions, hint Hint, err error) (gorm.ConnPool, error) {
	t, ok := st.router.(TxRetrier)
	if !ok {
		return (*Tx)(nil), err
	}
	for range maxRetries {
		if node = t.RetryTx(ctx, node, opts, hint, err); node == nil {
			break
		}
		var tx gorm.ConnPool
		if tx, err = begunTx(ctx, st, node, opts); err == nil {
			return tx, nil
		}
	}
	return (*Tx)(nil), err
}
