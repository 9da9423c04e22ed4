package infra_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/resolver"
)

// Two processes serve one client: the first takes its writes, the second its
// reads from a replica that has stopped replaying.
func TestR05OwnWritesAreSeenByTheOtherProcess(t *testing.T) {
	t.Parallel()
	c := testbed.NewCluster(t, testbed.ClusterConfig{Replicas: 1})
	s := newShop(t, c)
	key := bytes.Repeat([]byte("k"), 32)
	server := func(session resolver.Session) string {
		db := s.open(t)
		p := use(t, db, infra.Config{Resolver: resolver.Config{
			Replicas: resolver.DSNs(c.Replica(0).DSN(s.name)), MaxLag: time.Hour, Session: session,
		}})
		check(t, p.Ready(deadline(t)))
		mux := http.NewServeMux()
		mux.HandleFunc("POST /", func(_ http.ResponseWriter, r *http.Request) {
			check(t, db.WithContext(r.Context()).Model(&Product{}).Where("id = 1").Update("name", r.URL.Query().Get("name")).Error)
		})
		mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
			var name string
			check(t, db.WithContext(r.Context()).Raw("SELECT name FROM products WHERE id = 1").Scan(&name).Error)
			fmt.Fprint(w, name)
		})
		return serve(t, p.Middleware(mux))
	}
	first := server(resolver.Session{Key: key})
	second := server(resolver.Session{Key: bytes.Repeat([]byte("n"), 32), OldKeys: [][]byte{key}})
	check(t, c.Replica(0).PauseReplay(deadline(t)))

	writer := &client{t: t}
	stale := 0
	for i := range 20 {
		want := fmt.Sprint("name", i)
		writer.do(http.MethodPost, first+"/?name="+want)
		if writer.cookies["infra-token"] == "" {
			t.Fatal("a write sets no cookie")
		}
		if got := writer.do(http.MethodGet, second); got != want {
			t.Errorf("read %q after writing %q", got, want)
		}
		if got := (&client{t: t}).do(http.MethodGet, second); got != want {
			stale++ // a stranger may be shown less
		}
	}
	if stale == 0 {
		t.Error("the replica was never asked, and nothing was shown")
	}
	good := writer.cookies["infra-token"]
	for _, broken := range []string{"x", good[:len(good)-1], strings.Repeat("A", 72)} {
		for _, name := range []string{"infra-token", "infra-token-read"} {
			guest := &client{t: t, cookies: map[string]string{name: broken}}
			if got := guest.do(http.MethodGet, second); got != "name19" {
				t.Errorf("with the token %q a replica was read: %q", broken, got)
			}
			if read := guest.cookies["infra-token-read"]; read == "" || read == broken {
				t.Error("no token takes the place of a broken one")
			}
		}
	}
	check(t, c.Replica(0).ResumeReplay(deadline(t)))
}

// Whoever catches the panic of a handler answers for it, and its client sees what it
// had written.
func TestR05AHandlerThatPanicsHandsItsTokenOn(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	s := newShop(t, c)
	db := s.open(t)
	p := use(t, db, infra.Config{Resolver: resolver.Config{Session: resolver.Session{Key: bytes.Repeat([]byte("k"), 32)}}})
	handler := p.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		check(t, db.WithContext(r.Context()).Model(&Product{}).Where("id = 1").Update("name", "panicked").Error)
		panic("after the commit")
	}))
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		handler.ServeHTTP(w, r)
	}))
	resp, err := http.Get(url) //nolint:noctx // of this process
	check(t, err)
	check(t, resp.Body.Close())
	if resp.StatusCode != http.StatusInternalServerError || len(resp.Cookies()) != 1 || resp.Cookies()[0].Name != "infra-token" {
		t.Errorf("%s with the cookies %v", resp.Status, resp.Cookies())
	}
}

// client keeps the tokens as a browser does.
type client struct {
	t       *testing.T
	cookies map[string]string
	header  http.Header // of the last answer
}

func (c *client) do(method, url string) string {
	c.t.Helper()
	req, err := http.NewRequestWithContext(deadline(c.t), method, url, nil)
	check(c.t, err)
	for name, value := range c.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := http.DefaultClient.Do(req)
	check(c.t, err)
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	check(c.t, err)
	c.header = resp.Header
	for _, k := range resp.Cookies() {
		if name, wrote := "infra-token", method == http.MethodPost; wrote != (k.Name == name) || !strings.HasPrefix(k.Name, name) {
			c.t.Errorf("%s sets the cookie %s", method, k.Name)
		}
		if !k.HttpOnly || !k.Secure || k.SameSite != http.SameSiteLaxMode || k.Path != "/" || k.MaxAge != 3660 {
			c.t.Errorf("cookie %s", k)
		}
		if resp.Header.Get("Cache-Control") != "private" {
			c.t.Errorf("Cache-Control is %q beside a cookie", resp.Header.Get("Cache-Control"))
		}
		if c.cookies == nil {
			c.cookies = map[string]string{}
		}
		c.cookies[k.Name] = k.Value
	}
	return body.String()
}
