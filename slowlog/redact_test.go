package slowlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/sqltext"
)

func TestShapeHoldsNoValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ dialect, text, want string }{
		{"postgres", `SELECT * FROM a WHERE b = 'secret' AND c = 424242`, ""},
		{"postgres", `SELECT * FROM a WHERE b = E'\'secret' AND c = $x$secret$x$ -- secret`, ""},
		{"postgres", `SELECT 'secret`, "(unreadable)"},
		{"postgres", `SET app.token = secret`, "SET ?"},
		{"mysql", `SELECT * FROM a WHERE b = "secret"`, ""},
		{"mysql", `SELECT 'it\'s secret'`, "(unreadable)"},
		{"sqlite", `SELECT * FROM a WHERE b = "secret"`, ""},
		{"sqlite", `PRAGMA key = secret`, "SET ?"},
	} {
		got := shapeOf(sqltext.Parse(c.text), c.dialect)
		if strings.Contains(got, "secret") || strings.Contains(got, "424242") || c.want != "" && got != c.want {
			t.Errorf("%s: %s: %s", c.dialect, c.text, got)
		}
	}
}

func TestConditionsOfPlansHoldNoValue(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`((name)::text = 'secret'::text)`:           `((name)::text = ?)`,
		`(id = ANY ('{1,2,3}'::integer[]))`:         `(id = ANY (?))`,
		`((a > 5) AND (b ~~ '%secret%'::text))`:     `((a > ?) AND (b ~~ ?))`,
		`created_at DESC`:                           `created_at DESC`,
		`'secret`:                                   `?`,
		`(InitPlan 1).col1 = 5; DELETE FROM secret`: "",
	} {
		got := redactExpr(in)
		if strings.ContainsAny(got, "12345") && !strings.Contains(in, "InitPlan") || want != "" && !strings.EqualFold(got, want) {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestCutKeepsWholeRunes(t *testing.T) {
	t.Parallel()
	s := strings.Repeat("é", 100)
	for n := 5; n < 210; n++ {
		got := cut(s, n)
		if len(got) > n || !utf8.ValidString(got) {
			t.Fatalf("cut to %d: %d bytes, %q", n, len(got), got)
		}
	}
}

func TestErrorClassHasNoText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{&pgconn.PgError{Code: "23505", Message: "secret"}, "23505"},
		{fmt.Errorf("secret: %w", &pgconn.PgError{Code: "22P02"}), "22P02"},
		{fmt.Errorf("secret: %w", context.Canceled), "canceled"},
		{context.DeadlineExceeded, "timeout"},
		{gorm.ErrRecordNotFound, "not_found"},
		{sql.ErrNoRows, "not_found"},
		{gorm.ErrDuplicatedKey, "duplicate_key"},
		{io.ErrUnexpectedEOF, "connection"},
		{&net.OpError{Op: "read", Err: errors.New("secret")}, "connection"},
		{errors.New("secret"), "other"},
	} {
		if got := errorClass(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestUserIsHashedByTheKey(t *testing.T) {
	t.Parallel()
	a, b, other := New(Config{HashKey: []byte("k")}), New(Config{HashKey: []byte("k")}), New(Config{})
	x, y, z := a.hashUser("bob"), b.hashUser("bob"), other.hashUser("bob")
	if x != y || x == z || x == a.hashUser("eve") || len(x) != 16 || strings.Contains(x, "bob") {
		t.Fatalf("same key %q %q, random key %q", x, y, z)
	}
	if a.hashUser("") != "" {
		t.Fatal("nobody has a hash")
	}
}
