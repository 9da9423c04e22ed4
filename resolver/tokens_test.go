package resolver

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestR05TokensOfSeveralDatabasesSurviveTheTrip(t *testing.T) {
	t.Parallel()
	main := aToken()
	far := token{part: partOfGroup("orders"), system: 9, timeline: 2, lsn: 77, expires: main.expires}
	blind := token{part: partOfGroup("users"), primary: true, expires: main.expires}
	for _, parts := range [][]token{{main}, {far}, {main, far}, {blind, far}, {main, far, blind}} {
		text := encodeTokens(parts, keyA)
		if got, err := decodeTokens(text, [][]byte{keyB, keyA}, noon); err != nil || !slices.Equal(got, parts) {
			t.Errorf("%+v became %+v, %v", parts, got, err)
		}
		for name, tt := range map[string]struct {
			text string
			keys [][]byte
			at   time.Time
			want error
		}{
			"forged":    {text, [][]byte{keyB}, noon, errTokenForged},
			"expired":   {text, [][]byte{keyA}, noon.Add(time.Minute), errTokenExpired},
			"truncated": {text[:len(text)-1], [][]byte{keyA}, noon, errTokenForm},
			"longer":    {text + "A", [][]byte{keyA}, noon, errTokenForm},
		} {
			if _, err := decodeTokens(tt.text, tt.keys, tt.at); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(encodeTokens([]token{main, far}, keyA))
	must(t, err)
	body := raw[:len(raw)-tokenMAC]
	for at := range map[int]string{0: "version", partsHead + 4: "flags"} {
		b := slices.Clone(body)
		b[at] |= 0x40
		if _, err := decodeTokens(base64.RawURLEncoding.EncodeToString(append(b, tokenSum(keyA, b)...)), [][]byte{keyA}, noon); !errors.Is(err, errTokenVersion) {
			t.Errorf("byte %d is of a newer version: %v", at, err)
		}
	}
	many := make([]token, maxParts+1)
	for i := range many {
		many[i] = token{part: uint32(i), expires: main.expires}
	}
	if got, err := decodeTokens(encodeTokens(many, keyA), [][]byte{keyA}, noon); err != nil || len(got) != 1 || got[0].part != everyPart || !got[0].primary {
		t.Errorf("too many databases: %+v, %v", got, err)
	}
	if got, err := decodeTokens(encodeTokens(many[:maxParts], keyA), [][]byte{keyA}, noon); err != nil || len(got) != maxParts {
		t.Errorf("as many as there may be: %d, %v", len(got), err)
	}
}

// Two processes serve one client. The group's replica has stopped replaying.
func TestR05AGroupsOwnWritesAreSeenByTheOtherProcess(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	other := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	ctx := deadline(t)
	must(t, other.Primary().Exec(ctx, "", "CREATE TABLE notes (id int, n bigint); INSERT INTO notes VALUES (1, 0)"))
	must(t, other.WaitCaughtUp(ctx))
	second := newRig(t, c, func(cfg *Config) {
		cfg.MaxLag, cfg.Session = time.Hour, Session{Key: keyA}
		cfg.Groups = []Group{{
			Name: "notes", Tables: []any{"notes"}, Source: &Node{DSN: other.Primary().DSN("")}, Replicas: DSNs(other.Replica(0).DSN("")),
		}}
	})
	first := &rig{t: t, c: c, name: second.name, primary: second.primary, nodes: second.nodes}
	first.open(second.r.given)
	for _, g := range []*rig{first, second} {
		g.allInUse()
	}
	must(t, other.Replica(0).PauseReplay(ctx))

	write := func(n int64) func(context.Context) {
		return func(ctx context.Context) { must(t, first.db.WithContext(ctx).Exec("UPDATE notes SET n = ?", n).Error) }
	}
	read := func(g *rig, w *where) func(context.Context) {
		return func(ctx context.Context) {
			*w = where{}
			must(t, g.db.WithContext(ctx).Raw("SELECT n, pg_is_in_recovery() AS standby FROM notes WHERE id = 1").Scan(w).Error)
		}
	}
	sees := func(what, token string, want int64) (next string) {
		t.Helper()
		var w where
		next, _ = second.request(token, nil, read(second, &w))
		if w.N != want {
			t.Errorf("%s: the other process reads %d, want %d", what, w.N, want)
		}
		return next
	}
	token, _ := first.request("", nil, write(1))
	if parts, err := decodeTokens(token, [][]byte{keyA}, time.Now()); err != nil || len(parts) != 1 || parts[0].part != partOfGroup("notes") {
		t.Errorf("a write to the group alone gives %+v, %v", parts, err)
	}
	read2 := sees("after a write to the group", token, 1)
	if read2 == "" {
		t.Error("a read of the group on its source is no news")
	}
	sees("a stranger", "", 0)
	sees("a forged token", token[:len(token)-4]+"AAAA", 1)

	// It holds nothing else on a primary, and work elsewhere does not lose it.
	var w where
	next, _ := second.request(token, nil, func(ctx context.Context) { w = second.read(ctx, 1) })
	if !w.Standby {
		t.Error("a write to the group keeps other reads on the primary")
	}
	sees("after a request that read other tables", next, 1)
	both, _ := second.request(token, nil, func(ctx context.Context) { must(t, second.db.WithContext(ctx).Create(&item{N: 1}).Error) })
	sees("after a request that wrote to other tables", both, 1)
	if parts, err := decodeTokens(both, [][]byte{keyA}, time.Now()); err != nil || len(parts) != 2 {
		t.Errorf("two databases: %+v, %v", parts, err)
	}
	main, _ := first.request("", nil, func(ctx context.Context) { must(t, first.db.WithContext(ctx).Create(&item{N: 1}).Error) })
	sees("a write to other tables alone", main, 0)

	// By hand, for a job without a scope.
	sctx := inScope(ctx, "request")
	write(2)(sctx)
	text, err := first.r.Token(sctx)
	must(t, err)
	read(second, &w)(second.r.WithToken(ctx, text))
	if w.N != 2 {
		t.Errorf("a job reads %d", w.N)
	}

	// Once it has replayed, the replica serves, by the token alone.
	must(t, other.Replica(0).ResumeReplay(ctx))
	eventually(t, "the group's replica to serve the client", func() bool {
		second.request(text, nil, read(second, &w))
		if w.N != 2 {
			t.Fatalf("read %d", w.N)
		}
		return w.Standby
	})

	// A position that cannot be had means the source, until it is proven.
	sctx = inScope(ctx, "request")
	write(3)(sctx)
	must(t, other.Replica(0).PauseReplay(ctx))
	first.r.groups.far[0].live.Store(false)
	text, err = first.r.Token(sctx)
	first.r.groups.far[0].live.Store(true)
	must(t, err)
	if parts, err := decodeTokens(text, [][]byte{keyA}, time.Now()); err != nil || !parts[len(parts)-1].primary {
		t.Errorf("without a position: %+v, %v", parts, err)
	}
	proven := ""
	eventually(t, "another process to prove it", func() bool {
		proven, _ = second.request(text, nil, func(ctx context.Context) { second.read(ctx, 1) })
		parts, err := decodeTokens(proven, [][]byte{keyA}, time.Now())
		must(t, err)
		return len(parts) == 2 && !parts[1].primary && parts[1].lsn > 0
	})
	sees("without a position", text, 3)
	sees("with a proven one", proven, 3)
	must(t, other.Replica(0).ResumeReplay(ctx))
}
