package limithook

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC)

func TestHeadersTellHowTheUserStands(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		d    Decision
		want map[string]string
	}{
		"admitted": {
			Decision{Allowed: true, Scope: ScopeUser, Limit: 100, Window: time.Minute, Remaining: 41, ResetAfter: 1500 * time.Millisecond},
			map[string]string{
				"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "41", "X-RateLimit-Reset": "2026-03-01T12:00:02Z",
				"RateLimit-Policy": `"user";q=100;w=60`, "RateLimit": `"user";r=41;t=2`,
			},
		},
		"refused": {
			Decision{Scope: ScopeUser, Limit: 100, Window: 1500 * time.Millisecond, RetryAfter: time.Second + 1, ResetAfter: time.Second + 1},
			map[string]string{
				"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2026-03-01T12:00:02Z",
				"RateLimit-Policy": `"user";q=100;w=2`, "RateLimit": `"user";r=0;t=2`, "Retry-After": "2",
			},
		},
		"in Unix seconds": {
			Decision{Allowed: true, Scope: ScopeUser, Limit: 1, Window: time.Minute, ResetAfter: time.Second, unix: true},
			map[string]string{
				"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1772366402",
				"RateLimit-Policy": `"user";q=1;w=60`, "RateLimit": `"user";r=0;t=1`,
			},
		},
		"refused by a rule": {
			Decision{Scope: "tenant", Limit: 9, RetryAfter: 3 * time.Second, ResetAfter: time.Second, unix: true},
			map[string]string{"X-RateLimit-Reset": "1772366404", "Retry-After": "3"},
		},
		"in shadow mode": {Decision{Scope: ScopeUser, Limit: 1, Shadowed: true, quiet: true}, map[string]string{}},
		"refused for a moment": {
			Decision{Scope: ScopeUser, Limit: 1, Window: time.Second, RetryAfter: 1, ResetAfter: 1},
			map[string]string{
				"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2026-03-01T12:00:01Z",
				"RateLimit-Policy": `"user";q=1;w=1`, "RateLimit": `"user";r=0;t=1`, "Retry-After": "1",
			},
		},
		"admitted by the global limit alone": {Decision{Allowed: true, Scope: ScopeGlobal, Limit: 9, Remaining: 5, ResetAfter: time.Second}, map[string]string{}},
		"refused by the global limit": {
			Decision{Scope: ScopeGlobal, Limit: 9, RetryAfter: 3 * time.Second, ResetAfter: time.Second},
			map[string]string{"X-RateLimit-Reset": "2026-03-01T12:00:04Z", "Retry-After": "3"},
		},
		"not limited": {Decision{Allowed: true}, map[string]string{}},
		"no decision": {Decision{}, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{}
			setHeaders(h, c.d, noon)
			got := map[string]string{}
			for k := range h {
				got[k] = h.Get(k)
			}
			want := map[string]string{}
			for k, v := range c.want {
				want[http.CanonicalHeaderKey(k)] = v
			}
			if !maps.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestRefusalOverHTTP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		e      *Error
		status int
		scope  string
		secret string
	}{
		"user":        {&Error{Scope: ScopeUser, Limit: 100, Window: time.Minute, User: "abcdef", RetryAfter: 2500 * time.Millisecond}, 429, "user", "abcdef"},
		"global":      {&Error{Scope: ScopeGlobal, Limit: 4321, Window: time.Minute, Remaining: 87, RetryAfter: 2500 * time.Millisecond}, 429, "global", "4321"},
		"unavailable": {&Error{Scope: ScopeUnavailable, RetryAfter: 2500 * time.Millisecond, cause: fmt.Errorf("dial 10.0.0.7")}, 503, "unavailable", "10.0.0.7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.e.Reset = noon.Add(c.e.RetryAfter)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				w.Header().Set("Content-Encoding", "gzip")
				writeRefusal(w, r, c.e, noon)
			}))
			defer srv.Close()
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead} {
				req, err := http.NewRequestWithContext(t.Context(), method, srv.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				if res.StatusCode != c.status || res.Header.Get("Retry-After") != "3" || res.Header.Get("Content-Type") != "application/problem+json" ||
					res.Header.Get("Content-Encoding") != "" || res.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: %s, %v", method, res.Status, res.Header)
				}
				told := string(body)
				for k, v := range res.Header {
					told += k + strings.Join(v, ",")
				}
				if strings.Contains(told, c.secret) || strings.Contains(told, "87") {
					t.Errorf("%s shows what is nobody's business: %s", method, told)
				}
				if (res.Header.Get("X-RateLimit-Limit") != "") != (name == "user") {
					t.Errorf("%v", res.Header)
				}
				if method == http.MethodHead {
					if len(body) > 0 {
						t.Error("a HEAD has a body")
					}
					continue
				}
				var p map[string]any
				if err := json.Unmarshal(body, &p); err != nil {
					t.Fatalf("%v: %s", err, body)
				}
				if p["status"] != float64(c.status) || p["scope"] != c.scope || p["retry_after"] != 3.0 || p["title"] != http.StatusText(c.status) || p["detail"] == "" || p["type"] != "about:blank" {
					t.Errorf("%s", body)
				}
				_, limit := p["limit"]
				if limit != (name == "user") {
					t.Errorf("limit told: %s", body)
				}
			}
		})
	}
}

func TestAnOldRefusalTellsWhatIsLeftToWait(t *testing.T) {
	t.Parallel()
	e := &Error{Scope: ScopeUser, Limit: 1, Window: time.Minute, RetryAfter: 40 * time.Second, Reset: noon.Add(40 * time.Second)}
	for after, want := range map[time.Duration]string{0: "40", 10 * time.Second: "30", time.Hour: "1"} {
		w := httptest.NewRecorder()
		writeRefusal(w, httptest.NewRequest(http.MethodGet, "/", nil), e, noon.Add(after))
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("%v later: retry after %s, want %s", after, got, want)
		}
	}
}

func TestMiddlewareNamesTheUserOfARequest(t *testing.T) {
	t.Parallel()
	byHeader := func(r *http.Request) string { return r.Header.Get("X-User") }
	for name, c := range map[string]struct {
		identity   func(*http.Request) string
		header, in string
		user       string
		known      bool
	}{
		"named":                     {byHeader, "alice", "", "alice", true},
		"nobody":                    {byHeader, "", "", "", false},
		"nobody, but named already": {byHeader, "", "bob", "bob", true},
		"without Identity":          {nil, "alice", "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ran := false
			h := New(Config{Identity: c.identity}).Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				ran = true
				if user, known := User(r.Context()); user != c.user || known != c.known {
					t.Errorf("user %q, known %v; want %q, %v", user, known, c.user, c.known)
				}
			}))
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("X-User", c.header)
			if c.in != "" {
				r = r.WithContext(WithUser(r.Context(), c.in))
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			if !ran {
				t.Error("the handler did not run")
			}
		})
	}
}

func TestWriteLimitedAnswersRefusalsOnly(t *testing.T) {
	t.Parallel()
	l := testLimiter(t, Config{PerUser: PerMinute(1)}, monotonic)
	_ = l.Allow(as("a"))
	for err, want := range map[error]bool{
		fmt.Errorf("load orders: %w", l.Allow(as("a"))): true, io.EOF: false, nil: false, fmt.Errorf("x: %w", ErrCost): false,
	} {
		w := httptest.NewRecorder()
		if got := WriteLimited(w, httptest.NewRequest(http.MethodGet, "/", nil), err); got != want {
			t.Errorf("%v: %v", err, got)
		}
		if !want && (w.Body.Len() > 0 || len(w.Header()) > 0) {
			t.Errorf("%v: something was written", err)
		}
		if want && w.Code != http.StatusTooManyRequests {
			t.Errorf("%v: %d", err, w.Code)
		}
	}
}
