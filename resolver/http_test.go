package resolver

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestSharedCachesKeepNoToken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		given, want string
		public      bool
	}{
		{"", "private", false},
		{"max-age=60", "private, max-age=60", false},
		{"public, max-age=60, S-MaxAge=600", "private, max-age=60", true},
		{"Public", "private", true},
		{"no-store", "no-store", false},
		{"no-cache, private", "private, no-cache", false},
		{`private="a, public", max-age=1`, "private, max-age=1", false},
		{`ext="a, public", max-age=1`, `private, ext="a, public", max-age=1`, false},
	} {
		h := http.Header{}
		if tt.given != "" {
			h.Set("Cache-Control", tt.given)
		}
		if got := public(h); got != tt.public {
			t.Errorf("%q is public: %v", tt.given, got)
		}
		makePrivate(h)
		if got := h.Get("Cache-Control"); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.given, got, tt.want)
		}
	}
}

// request is one round through ReadToken and WriteToken.
func (g *rig) request(token string, header http.Header, work func(ctx context.Context)) (set string, out http.Header) {
	g.t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	cfg := g.r.cfg.Session
	if token != "" && cfg.Header {
		req.Header.Set(cfg.Name, token)
	} else if token != "" {
		req.AddCookie(&http.Cookie{Name: cfg.Name, Value: token})
	}
	ctx := g.r.ReadToken(inScope(deadline(g.t), "request"), req)
	work(ctx)
	if header == nil {
		header = http.Header{}
	}
	g.r.WriteToken(ctx, header)
	if cfg.Header {
		return header.Get(cfg.Name), header
	}
	for _, c := range (&http.Response{Header: header}).Cookies() {
		set, _, _ = strings.Cut(c.Value, coverSign)
	}
	return set, header
}

func TestR05TokenIsSetWhenThereIsNews(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Session.Key = keyA })
	g.allInUse()
	nothing := func(context.Context) {}
	read := func(ctx context.Context) { g.read(ctx, 1) }
	write := func(ctx context.Context) { must(t, g.db.WithContext(ctx).Create(&item{N: 1}).Error) }

	if set, _ := g.request("", nil, nothing); set != "" {
		t.Error("a request without statements sets a token")
	}
	first, _ := g.request("", nil, read)
	if first == "" {
		t.Fatal("a read sets no token")
	}
	if set, _ := g.request(first, nil, read); set != "" {
		t.Error("a read where the token says it was sets another one")
	}
	if set, h := g.request("", http.Header{"Cache-Control": {"public"}}, read); set != "" || h.Get("Cache-Control") != "public" {
		t.Error("a read makes a public response private")
	}
	var own string
	var tok token
	eventually(t, "the primary to be asked in time", func() bool {
		set, h := g.request(first, http.Header{"Cache-Control": {"public"}}, write)
		if set == "" || h.Get("Cache-Control") != "private" {
			t.Fatal("a write sets no token, or lets it be shared")
		}
		var err error
		own = set
		tok, err = decodeToken(own, [][]byte{keyA}, time.Now())
		must(t, err)
		return !tok.primary // on a busy machine its answer may come after the patience of a response
	})
	if tok.lsn == 0 || tok.system != g.r.primary().identity.system {
		t.Errorf("token of a write: %+v", tok)
	}
	// What it says is carried on by requests that only read.
	eventually(t, "a replica to have the write", func() bool {
		set, _ := g.request(own, nil, read)
		if set == "" {
			return false
		}
		next, err := decodeToken(set, [][]byte{keyA}, time.Now())
		must(t, err)
		if next.lsn < tok.lsn {
			t.Fatalf("%+v became %+v", tok, next)
		}
		return next.boot != 0
	})

	for _, change := range []func(*Session){
		func(s *Session) { s.Header = true; s.Name = "X-Infra-Token" },
		func(s *Session) { s.WritesOnly = true },
	} {
		cfg := g.r.given
		change(&cfg.Session)
		g.close()
		g.open(cfg)
		g.allInUse()
		if set, _ := g.request("", nil, write); set == "" {
			t.Error("a write sets no token")
		}
		if set, _ := g.request("", nil, read); (set == "") != cfg.Session.WritesOnly {
			t.Errorf("a read sets %q", set)
		}
	}
	cfg := g.r.given
	cfg.Session = Session{}
	g.close()
	g.open(cfg)
	if set, h := g.request(own, nil, write); set != "" || len(h) > 0 {
		t.Error("without a key a token is set")
	}
	if _, err := g.r.Token(context.Background()); err != ErrNoKey { //nolint:errorlint // the sentinel itself
		t.Error(err)
	}
}

func TestTokenOfTheProcessStandsForAllItWrote(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Session.Key = keyA })
	g.allInUse()
	ctx := context.Background()
	if text, err := g.r.Token(ctx); text != "" || err != nil {
		t.Errorf("a process that wrote nothing has the token %q, %v", text, err)
	}
	before := g.r.primary().replayed.Load()
	must(t, g.db.WithContext(inScope(ctx, "writer")).Create(&item{N: 1}).Error)
	var text string
	var tok token
	eventually(t, "the primary to be asked in time", func() (ok bool) {
		var err error
		text, err = g.r.Token(ctx)
		must(t, err)
		tok, err = decodeToken(text, [][]byte{keyA}, time.Now())
		must(t, err)
		return !tok.primary
	})
	if tok.lsn <= before {
		t.Errorf("%+v after %x", tok, before)
	}
	if g.r.WithToken(ctx, "") != ctx {
		t.Error("the empty token says something")
	}
	// A job of its own: no scope, but a session.
	job := g.r.WithToken(ctx, text)
	own := item{N: 9}
	must(t, g.db.WithContext(job).Create(&own).Error)
	if w := g.read(job, own.ID); w.N != 9 {
		t.Error("a job does not see its own write")
	}
	again, err := g.r.Token(job)
	must(t, err)
	if next, err := decodeToken(again, [][]byte{keyA}, time.Now()); err != nil || next.lsn <= tok.lsn && !next.primary {
		t.Errorf("%+v, %v", next, err)
	}
}

func TestSessionIsValidated(t *testing.T) {
	t.Parallel()
	err := Config{Session: Session{
		Key: []byte("topsecret"), OldKeys: append(make([][]byte, 8), []byte("y")), Name: "a b", TTL: time.Millisecond,
		Path: "x", Domain: "a;b", SameSite: http.SameSiteNoneMode, Insecure: true,
	}}.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, want := range []string{
		"resolver: Session.Key is 9 bytes long: must be at least 16 bytes",
		"resolver: Session.OldKeys is 9 keys: must be at most 8",
		"resolver: Session.OldKeys[8] is 1 bytes long",
		`resolver: Session.Name is "a b"`,
		"resolver: Session.TTL is 1ms",
		`resolver: Session.Path is "x"`,
		`resolver: Session.Domain is "a;b"`,
		"resolver: Session.Insecure is true",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(err.Error(), "topsecret") {
		t.Error("a key is repeated")
	}
	for _, bad := range []Session{
		{Key: keyA, Name: "__Secure-t", Insecure: true}, {Key: keyA, Name: "__host-t", Insecure: true},
		{Key: keyA, Name: "__Host-t", Domain: "example.com"}, {Key: keyA, Name: "__Host-t", Path: "/api"},
	} {
		if err := (Config{Session: bad}).Validate(); err == nil {
			t.Errorf("%+v would set cookies that browsers refuse", bad)
		}
	}
	for _, good := range []Session{
		{Key: keyA, Name: "__Host-t"}, {Key: keyA, Name: "__Host-t", Path: "/"}, {Key: keyA, Name: "__Secure-t", Domain: "example.com", Path: "/api"},
		{Key: keyA, Name: "__Host-t", Insecure: true, Header: true},
	} {
		must(t, Config{Session: good}.Validate())
	}
	if err := (Config{Session: Session{OldKeys: [][]byte{keyA}}}).Validate(); err == nil {
		t.Error("old keys alone are accepted")
	}
	// Who comes without a token, since it ran out, reads within each table's own bound.
	for want, cfg := range map[time.Duration]Config{
		65 * time.Second: {},
		6 * time.Minute:  {MaxLag: time.Second, Groups: []Group{{Name: "g", MaxLag: 5 * time.Minute}, {Name: "h"}}},
		4 * time.Minute:  {Priorities: Priorities{Background: Class{MaxLag: 3 * time.Minute}}},
	} {
		if got := cfg.withDefaults().Session.TTL; got != want {
			t.Errorf("%+v: tokens count for %v, want %v", cfg, got, want)
		}
	}
	key := bytes.Clone(keyA)
	cfg := Config{Session: Session{Key: key}, MaxLag: AnyStaleness}.withDefaults()
	key[0]++
	if s := cfg.Session; !bytes.Equal(s.Key, keyA) || s.TTL != 24*time.Hour || s.Name != "infra-token" || s.SameSite != http.SameSiteLaxMode {
		t.Errorf("%+v", s)
	}
}
