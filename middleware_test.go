package infra_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
	"github.com/gorminfra/infra/slowlog"
)

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func get(t *testing.T, url, user string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, url, nil)
	check(t, err)
	req.Header.Set("X-User", user)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp, string(body)
}

func limited(cfg infra.Config, n int) infra.Config {
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Limits = limithook.Config{PerUser: limithook.PerMinute(n), Identity: func(r *http.Request) string { return r.Header.Get("X-User") }}
	return cfg
}

func TestMiddlewareAnswers429WhenAStatementWasRefused(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	p := use(t, db, limited(infra.Config{}, 3))
	mux := http.NewServeMux()
	read := func(r *http.Request) error { return db.WithContext(r.Context()).First(&Product{}, 1).Error }
	mux.HandleFunc("/explicit", func(w http.ResponseWriter, r *http.Request) {
		if err := read(r); err != nil && !infra.WriteLimited(w, r, err) {
			t.Error(err)
		}
	})
	mux.HandleFunc("/ignorant", func(w http.ResponseWriter, r *http.Request) {
		if err := read(r); err != nil {
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "oops!")
		}
	})
	mux.HandleFunc("/swallowed", func(w http.ResponseWriter, r *http.Request) {
		_ = read(r)
		_, _ = io.WriteString(w, "without it")
	})
	url := serve(t, p.Middleware(mux))

	for i := range 3 {
		resp, _ := get(t, url+"/explicit", "ann")
		if resp.StatusCode != http.StatusOK || resp.Header.Get("X-RateLimit-Limit") != "3" || resp.Header.Get("X-RateLimit-Remaining") != fmt.Sprint(2-i) {
			t.Errorf("request %d: %d %v", i+1, resp.StatusCode, resp.Header)
		}
	}
	for _, path := range []string{"/explicit", "/ignorant"} {
		resp, body := get(t, url+path, "ann")
		if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" ||
			resp.Header.Get("X-RateLimit-Remaining") != "0" || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
		var problem struct {
			Status int
			Title  string
		}
		if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Status != http.StatusTooManyRequests {
			t.Errorf("%s: body %q: %v", path, body, err)
		}
		if _, err := time.Parse(time.RFC3339, resp.Header.Get("X-RateLimit-Reset")); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if resp, body := get(t, url+"/swallowed", "ann"); resp.StatusCode != http.StatusOK || body != "without it" {
		t.Errorf("a handler that answers without the statement: %d %q", resp.StatusCode, body)
	}
	if resp, _ := get(t, url+"/explicit", "bob"); resp.StatusCode != http.StatusOK {
		t.Errorf("another user: %d", resp.StatusCode)
	}
}

func TestMiddlewareLimitsRequestsApartFromStatements(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	cfg := limited(infra.Config{}, 1000)
	cfg.HTTP.Requests.PerUser = limithook.PerMinute(2)
	p := use(t, db, cfg)
	calls := 0
	url := serve(t, p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { calls++ })))
	for i, want := range []int{200, 200, 429, 429} {
		if resp, _ := get(t, url, "ann"); resp.StatusCode != want {
			t.Errorf("request %d: %d, want %d", i+1, resp.StatusCode, want)
		}
	}
	if calls != 2 {
		t.Errorf("the handler ran %d times", calls)
	}
}

func TestRequestLimitsByRouteAndChangedLive(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	cfg := limited(infra.Config{}, 1000)
	cfg.Limits.UnixReset = true
	cfg.HTTP.Requests = infra.RequestLimits{
		PerUser: limithook.PerMinute(4),
		Rules:   []limithook.Rule{{Name: "route", Key: limithook.ByRoute, Rate: limithook.PerMinute(2)}},
	}
	p := use(t, db, cfg)
	mux := http.NewServeMux()
	for _, path := range []string{"/a", "/b"} {
		mux.HandleFunc("GET "+path, func(http.ResponseWriter, *http.Request) {})
	}
	url := serve(t, p.Middleware(mux))
	step := func(path, user string, want int) http.Header {
		t.Helper()
		resp, _ := get(t, url+path, user)
		if resp.StatusCode != want {
			t.Errorf("%s of %s: %d, want %d", path, user, resp.StatusCode, want)
		}
		return resp.Header
	}
	step("/a", "ann", 200)
	h := step("/a", "bob", 200)
	if at, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err != nil || time.Until(time.Unix(at, 0)) < 50*time.Second {
		t.Errorf("X-RateLimit-Reset is %q", h.Get("X-RateLimit-Reset"))
	}
	if h := step("/a", "ann", 429); h.Get("Retry-After") == "" || h.Get("X-RateLimit-Limit") != "" {
		t.Errorf("the route's own limit is told to a user: %v", h)
	}
	step("/b", "ann", 200)
	check(t, p.Requests().SetLimits(limithook.PerMinute(1), limithook.Limit{}))
	step("/b", "ann", 429)
	check(t, p.Requests().SetLimits(limithook.Limit{}, limithook.Limit{}))
	step("/b", "ann", 200)
	step("/b", "ann", 429) // by the route
	check(t, p.Requests().SetRule("route", limithook.Limit{}))
	step("/b", "ann", 200)
}

func TestDebugHeadersOnlyInDevelopment(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	for _, development := range []bool{true, false} {
		db := s.open(t)
		p := use(t, db, infra.Config{
			Development: development, Logger: slog.New(slog.DiscardHandler),
			Cache: cachehook.Config{Tables: map[string]cachehook.Rule{"products": {}}},
		})
		url := serve(t, p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var orders []Order
			check(t, db.WithContext(r.Context()).Find(&orders).Error)
			for i := range orders {
				check(t, db.WithContext(r.Context()).First(&orders[i].Customer, orders[i].CustomerID).Error)
			}
			for range 2 {
				check(t, db.WithContext(r.Context()).First(&Product{}, 1).Error)
			}
		})))
		resp, _ := get(t, url, "")
		want := map[string]string{infra.HeaderQueryCount: "23", infra.HeaderNPlusOne: "1", infra.HeaderCache: "hit=1, miss=1", infra.HeaderPool: "primary=22"}
		for name, value := range want {
			if !development {
				value = ""
			}
			if got := resp.Header.Get(name); got != value {
				t.Errorf("development %v: %s is %q, want %q", development, name, got, value)
			}
		}
	}
}

func TestMiddlewareLetsAbilitiesAndPanicsThrough(t *testing.T) {
	t.Parallel()
	p := infra.New(infra.Config{Development: true})
	mux := http.NewServeMux()
	mux.HandleFunc("/flush", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		check(t, http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)))
		check(t, http.NewResponseController(w).Flush())
		_, _ = io.Copy(w, strings.NewReader("b"))
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := w.(http.Hijacker).Hijack()
		check(t, err)
		_, _ = buf.WriteString("HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n")
		_ = buf.Flush()
		_ = conn.Close()
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	})
	url := serve(t, p.Middleware(mux))

	if _, body := get(t, url+"/flush", ""); body != "ab" {
		t.Errorf("flush: %q", body)
	}
	if resp, _ := get(t, url+"/hijack", ""); resp.StatusCode != 299 {
		t.Errorf("hijack: %d", resp.StatusCode)
	}
	if _, err := http.Get(url + "/panic"); !errors.Is(err, io.EOF) {
		t.Errorf("panic: %v, want the connection aborted", err)
	}
	if resp, _ := get(t, url+"/hints", ""); resp.StatusCode != http.StatusNoContent {
		t.Errorf("hints: %d", resp.StatusCode)
	}
}

// plain has no ability besides writing.
type plain struct{ http.ResponseWriter }

func TestMiddlewareInventsNoAbility(t *testing.T) {
	t.Parallel()
	p := infra.New(infra.Config{})
	h := p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Flusher); ok {
			t.Error("a writer without Flush got one")
		}
		if _, ok := w.(http.Hijacker); ok {
			t.Error("a writer without Hijack got one")
		}
	}))
	h.ServeHTTP(plain{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil))
}

func TestNestedMiddlewaresJoinOneScope(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	p := use(t, db, infra.Config{Development: true, Logger: slog.New(slog.DiscardHandler)})
	url := serve(t, p.Middleware(p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, inner := p.Begin(r.Context(), "inner")
		check(t, db.WithContext(ctx).First(&Product{}, 1).Error)
		if n := inner.End().Statements; n != 1 {
			t.Errorf("%d statements", n)
		}
		check(t, db.WithContext(ctx).First(&Product{}, 2).Error)
	}))))
	resp, _ := get(t, url, "")
	if got := resp.Header.Values(infra.HeaderQueryCount); len(got) != 1 || got[0] != "2" {
		t.Errorf("%s is %v, want one header with 2", infra.HeaderQueryCount, got)
	}
}

func TestRouteIsThePatternOrWhatTheProgramSays(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	routes := make(chan string, 1)
	p := use(t, db, infra.Config{Logger: slog.New(slog.DiscardHandler), SlowLog: slowlog.Config{
		Threshold: 1, Sink: func(_ context.Context, e slowlog.Entry) { routes <- e.Route },
	}})
	read := func(_ http.ResponseWriter, r *http.Request) {
		check(t, db.WithContext(r.Context()).First(&Product{}, 1).Error)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products/{id}", read)
	mux.HandleFunc("/any", read)
	mux.HandleFunc("/own", func(w http.ResponseWriter, r *http.Request) {
		infra.SetRoute(r.Context(), "own name")
		read(w, r)
	})
	url := serve(t, p.Middleware(mux))
	for path, want := range map[string]string{"/products/1": "GET /products/{id}", "/any": "GET /any", "/own": "own name"} {
		get(t, url+path, "")
		if got := <-routes; got != want {
			t.Errorf("%s: route %q, want %q", path, got, want)
		}
	}
	req, err := http.NewRequestWithContext(deadline(t), "INVENTED", url+"/any", nil)
	check(t, err)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	check(t, resp.Body.Close())
	if got := <-routes; got != "OTHER /any" {
		t.Errorf("an invented method: route %q", got)
	}
}

func TestRequestsAreCountedByTheStatusThatWasSent(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	srv := testbed.NewRedis(t, testbed.RedisConfig{})
	reg := prometheus.NewRegistry()
	cfg := limited(infra.Config{Redis: newRedisClient(t, srv), Metrics: metrics.Config{Registerer: reg}}, 100)
	cfg.Limits.OnRedisFailure = limithook.Closed
	cfg.Cache.Disabled = true
	p := use(t, db, cfg)
	check(t, srv.Kill())
	mux := http.NewServeMux()
	mux.HandleFunc("/undecided", func(w http.ResponseWriter, r *http.Request) {
		if err := db.WithContext(r.Context()).First(&Product{}, 1).Error; err != nil {
			http.Error(w, "oops", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	url := serve(t, p.Middleware(mux))
	if resp, _ := get(t, url+"/undecided", "ann"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a limiter that cannot decide: %d", resp.StatusCode)
	}
	if resp, err := http.Get(url + "/panic"); err == nil {
		_ = resp.Body.Close()
		t.Error("the panic was swallowed")
	}
	eventually(t, "both requests are counted", func() bool {
		families, err := reg.Gather()
		check(t, err)
		codes := map[string]bool{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if f.GetName() == "infra_request_duration_seconds" && l.GetName() == "code" {
						codes[l.GetValue()] = true
					}
				}
			}
		}
		return len(codes) == 2 && codes["503"] && codes["499"]
	})
}
