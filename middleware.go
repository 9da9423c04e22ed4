package infra

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/limithook"
)

// The debug headers, written while Config.Development is set. They tell what had
// happened when the handler sent its header.
const (
	HeaderQueryCount = "X-Query-Count"      // statements of the request
	HeaderNPlusOne   = "X-Query-N-Plus-One" // findings of the request
	HeaderCache      = "X-Cache"            // "hit", "miss" or "hit=2, miss=1"; absent when no statement was to be cached
	HeaderPool       = "X-DB-Pool"          // "primary=1, r1=3": statements by node
)

// Middleware opens a scope for each request: its statements see the request's own
// writes, are counted together, and are charged to whom Config.Limits.Identity
// names. A request above Config.HTTP.Requests is answered with 429, and with 503
// when a deadline of its context, set by a middleware outside, ends while the limit
// is asked. X-RateLimit-Limit tells of the limit of requests where a user has one, and
// otherwise of that of statements. When a
// statement was refused by a limit and the handler then answers with a status of
// 500 or above, the answer becomes the 429 (or the 503 of a limiter that cannot
// decide) that WriteLimited gives; so a handler need not know of limits.
//
// With Config.Resolver.Session.Key the request's token is read, so that its reads
// see what the client wrote before, and a new one is set when the header goes out
// and there is news: what is written after that is not in it.
//
// The request is named by the pattern of an http.ServeMux: hand it the mux
// itself, with your own middlewares around the outside, since one between them
// that makes a copy of the request (r.WithContext) hides the pattern. For other
// routers there are HTTP.Route and SetRoute.
//
// Nested Middlewares join one scope. Flush, Hijack, http.ResponseController and
// panics pass through.
func (p *Plugin) Middleware(next http.Handler) http.Handler {
	// A mux tells the pattern before it runs the handler, so that what is said
	// of a statement meanwhile can name the route.
	match := func(r *http.Request) string { return r.Pattern }
	if mux, ok := next.(interface {
		Handler(r *http.Request) (http.Handler, string)
	}); ok {
		match = func(r *http.Request) string { _, pattern := mux.Handler(r); return pattern }
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := p.route(r, match(r))
		ctx, s, joined := scope.Begin(r.Context(), route)
		if joined {
			next.ServeHTTP(w, r)
			return
		}
		if p.cfg.Limits.Identity != nil {
			if id := p.cfg.Limits.Identity(r); id != "" {
				ctx = limithook.WithUser(ctx, id)
			}
		}
		r = r.WithContext(p.resolver.ReadToken(ctx, r))
		rw := newResponse(w, p, r, s)
		completed := false
		defer func() {
			if !completed && rw.status == 0 {
				// It panicked: whoever catches that outside answers with this header.
				p.resolver.WriteToken(r.Context(), w.Header())
			}
			if r.Pattern != "" && s.Name() == route { // unless SetRoute has said better
				s.SetName(p.route(r, r.Pattern))
			}
			s.End()
			p.nplusone.Finish(s)
			p.metrics.ObserveRequest(s.Name(), elapsed(s), rw.code(completed))
		}()
		if l := p.requests.Load(); l != nil {
			d, err := l.Decide(ctx, 1)
			switch {
			case errors.Is(err, context.Canceled):
				return // the client has gone
			case err != nil: // a deadline of the program's own: the client is there
				http.Error(rw, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
				completed = true
				return
			case !d.Allowed:
				limithook.WriteRefusal(rw, r, l.Refusal(ctx, d))
				completed = true
				return
			}
			limithook.SetHeaders(w.Header(), d)
			rw.told = w.Header().Get(limithook.HeaderLimit) != ""
		}
		next.ServeHTTP(rw.outer, r)
		rw.finish()
		completed = true
	})
}

// WriteLimited answers a request whose statement was refused by a limit: 429 with
// X-RateLimit-Limit, -Remaining and -Reset, Retry-After and a body of type
// application/problem+json; 503 when the limiter could not decide. It reports
// false, and writes nothing, when err is no such refusal. Inside Middleware it writes
// nothing into an answer whose header has gone out already: what was sent of it stands,
// and it reports true.
func WriteLimited(w http.ResponseWriter, r *http.Request, err error) bool {
	if sent(w) {
		var e *limithook.Error
		return errors.As(err, &e)
	}
	return limithook.WriteLimited(w, r, err)
}

// route names the request.
func (p *Plugin) route(r *http.Request, pattern string) string {
	switch {
	case p.cfg.HTTP.Route != nil:
		return p.cfg.HTTP.Route(r)
	case strings.Contains(pattern, " "):
		return pattern
	}
	// A client may invent methods; a route has few values.
	method := "OTHER"
	if slices.Contains(methods, r.Method) {
		method = r.Method
	}
	return strings.TrimSuffix(method+" "+pattern, " ")
}

var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

// debugHeaders tells what the scope has cost so far.
func (p *Plugin) debugHeaders(h http.Header, s *scope.Scope) {
	t := totalsSlot.Get(s).snapshot()
	h.Set(HeaderQueryCount, strconv.Itoa(t.Statements))
	h.Set(HeaderNPlusOne, strconv.Itoa(p.nplusone.Count(s)))
	switch hits, misses := t.CacheHits(), t.CacheMisses; {
	case hits == 0 && misses == 0: // the cache was not asked
	case hits == 0:
		h.Set(HeaderCache, "miss")
	case misses == 0:
		h.Set(HeaderCache, "hit")
	default:
		h.Set(HeaderCache, fmt.Sprintf("hit=%d, miss=%d", hits, misses))
	}
	if pools := t.pools(); pools != "" {
		h.Set(HeaderPool, pools)
	}
	h.Add("Server-Timing", fmt.Sprintf("db;dur=%.3f", float64(t.StatementTime)/float64(time.Millisecond)))
}
