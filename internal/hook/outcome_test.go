package hook

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestOutcomeIsUnknownUnlessTheServerSaidOtherwise(t *testing.T) {
	t.Parallel()
	pg := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		name           string
		err            error
		commit, single TxnOutcome
	}{
		{"no error", nil, Committed, Committed},
		{"done already", sql.ErrTxDone, RolledBack, Unknown},
		{"COMMIT answered with ROLLBACK", pgx.ErrTxCommitRollback, RolledBack, Unknown},
		{"bare end of the context", context.Canceled, Unknown, Unknown},
		{"wrapped end of the context", fmt.Errorf("timeout: %w", context.DeadlineExceeded), Unknown, Unknown},
		{"connection lost", io.ErrUnexpectedEOF, Unknown, Unknown},
		{"database/sql's bad connection", driver.ErrBadConn, Unknown, Unknown},
		{"pgx's closed connection", fmt.Errorf("wrapped: %w", pgconn.ErrConnClosed), Unknown, Unknown},
		{"never sent", neverSent{}, RolledBack, RolledBack},
		{"never connected", &pgconn.ConnectError{}, RolledBack, RolledBack},
		{"unique violation", pg("23505"), RolledBack, RolledBack},
		{"serialization failure", pg("40001"), RolledBack, RolledBack},
		{"read-only node", pg("25006"), RolledBack, RolledBack},
		{"canceled by request", pg("57014"), RolledBack, RolledBack},
		{"server shuts down", pg("57P01"), Unknown, Unknown},
		{"completion unknown to the server", pg("40003"), Unknown, Unknown},
		{"connection exception", pg("08006"), Unknown, Unknown},
		{"internal error", pg("XX000"), Unknown, Unknown},
		{"an error of our own side", errors.New("scan"), Unknown, Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := commitOutcome(c.err); got != c.commit {
				t.Errorf("of COMMIT: %v, want %v", got, c.commit)
			}
			if got := autocommitOutcome(c.err); got != c.single {
				t.Errorf("of a single statement: %v, want %v", got, c.single)
			}
		})
	}
}

func TestCommitThatSucceedsAfterItsContextEndedIsToldAfterTheRollback(t *testing.T) {
	t.Parallel()
	var got []TxnOutcome
	txn := &Txn{Context: t.Context(), stages: &stages{txns: []TxnObserver{endings(func(o TxnOutcome) { got = append(got, o) })}}}
	txn.cancelled()
	txn.end(RolledBack)
	txn.end(Unknown)
	txn.end(Committed)
	if len(got) != 2 || got[0] != RolledBack || got[1] != Committed {
		t.Fatalf("told %v, want rolled_back and then committed", got)
	}
}

func TestContextThatEndsDuringCommitDecidesNothing(t *testing.T) {
	t.Parallel()
	var got []TxnOutcome
	txn := &Txn{Context: t.Context(), stages: &stages{txns: []TxnObserver{endings(func(o TxnOutcome) { got = append(got, o) })}}}
	txn.startCommit()
	txn.cancelled()
	if len(got) != 0 {
		t.Fatalf("told %v while COMMIT runs", got)
	}
	txn.end(Unknown)
	if len(got) != 1 || got[0] != Unknown {
		t.Fatalf("told %v, want unknown", got)
	}
}

func TestTransactionRemembersEachTextOnceAndNoMoreThanItsBound(t *testing.T) {
	t.Parallel()
	txn := &Txn{}
	for i := range 3 * maxTxnWrites {
		r := Record{Where: InTxn, Txn: txn, stages: &stages{hub: &Hub{}}}
		r.reach(t.Context(), fmt.Sprintf("INSERT INTO t%d VALUES (1)", i%(2*maxTxnWrites)), nil)
		_ = r.beforeWrite(t.Context())
	}
	w := txn.Writes()
	if len(w) != maxTxnWrites+1 || !w[maxTxnWrites].MayWrite() || len(w[maxTxnWrites].Writes) != 0 {
		t.Fatalf("%d writes remembered, want %d and one that stands for all", len(w), maxTxnWrites)
	}
	key := struct{ name string }{"k"}
	if txn.Value(key) != nil {
		t.Fatal("a value that nobody set")
	}
	if txn.SetValue(key, 1); txn.Value(key) != 1 || !txn.Wrote() {
		t.Fatal("a value or the writes were lost")
	}
}

type endings func(TxnOutcome)

func (endings) Begin(*Txn)                               {}
func (endings) BeforeCommit(context.Context, *Txn) error { return nil }
func (f endings) Ended(_ *Txn, o TxnOutcome)             { f(o) }

type neverSent struct{}

func (neverSent) Error() string     { return "context already done" }
func (neverSent) SafeToRetry() bool { return true }
