package limithook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// The header fields of [SetHeaders] and [WriteRefusal]. The last two are those
// of the IETF's draft-ietf-httpapi-ratelimit-headers.
const (
	HeaderLimit      = "X-RateLimit-Limit"
	HeaderRemaining  = "X-RateLimit-Remaining"
	HeaderReset      = "X-RateLimit-Reset" // RFC 3339, UTC, or Unix seconds (see Config.UnixReset); whole seconds, never early
	HeaderRetryAfter = "Retry-After"       // whole seconds, never early
	HeaderRateLimit  = "RateLimit"
	HeaderPolicy     = "RateLimit-Policy"
)

// Middleware runs next with the user of the request, as Config.Identity names
// it, so that statements with the request's context are charged to that user
// (see [WithUser]). It limits no request itself and answers none: a handler
// tells of a refused statement by [WriteLimited].
func (p *Limits) Middleware(next http.Handler) http.Handler {
	if p.cfg.Identity == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := p.cfg.Identity(r); id != "" {
			r = r.WithContext(WithUser(r.Context(), id))
		}
		next.ServeHTTP(w, r)
	})
}

// SetHeaders tells a client how it stands by the user's limit. How all together
// stand by the global limit is nobody's business: of a decision on that alone,
// nothing but the time to retry is told.
func SetHeaders(h http.Header, d Decision) {
	setHeaders(h, d, time.Now())
}

func setHeaders(h http.Header, d Decision, now time.Time) {
	if d.quiet {
		return
	}
	if d.Scope == ScopeUser && d.Limit > 0 {
		h.Set(HeaderLimit, strconv.Itoa(d.Limit))
		h.Set(HeaderRemaining, strconv.Itoa(d.Remaining))
		h.Set(HeaderReset, resetAt(now, d.ResetAfter, d.unix))
		h.Set(HeaderPolicy, fmt.Sprintf(`"user";q=%d;w=%d`, d.Limit, seconds(d.Window)))
		h.Set(HeaderRateLimit, fmt.Sprintf(`"user";r=%d;t=%d`, d.Remaining, seconds(d.ResetAfter)))
	}
	if !d.Allowed && d.Scope != "" {
		h.Set(HeaderRetryAfter, strconv.FormatInt(max(1, seconds(d.RetryAfter)), 10))
		if d.Scope != ScopeUser {
			h.Set(HeaderReset, resetAt(now, d.RetryAfter, d.unix))
		}
	}
}

// resetAt is an instant in whole seconds, rounded up.
func resetAt(now time.Time, after time.Duration, unix bool) string {
	at := now.Add(after + time.Second - 1).UTC().Truncate(time.Second)
	if unix {
		return strconv.FormatInt(at.Unix(), 10)
	}
	return at.Format(time.RFC3339)
}

// seconds rounds up.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

// problem is the body of a refusal, by RFC 9457.
type problem struct {
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Scope      Scope  `json:"scope"`
	Limit      int    `json:"limit,omitempty"`  // the user's
	Window     string `json:"window,omitempty"` // of it
	RetryAfter int64  `json:"retry_after"`      // seconds, as in the header
}

// WriteRefusal answers a request that e refused: status 429, or 503 when the
// limits could not be asked, the headers of [SetHeaders], and a body of type
// application/problem+json, which says nothing of the global limit's numbers.
// What the client asked for must not have been answered yet. A HEAD gets no
// body.
func WriteRefusal(w http.ResponseWriter, r *http.Request, e *Error) {
	writeRefusal(w, r, e, time.Now())
}

func writeRefusal(w http.ResponseWriter, r *http.Request, e *Error, now time.Time) {
	// The refusal may be older than this answer.
	retry := max(0, e.Reset.Sub(now))
	d := Decision{Scope: e.Scope, Limit: e.Limit, Window: e.Window, Remaining: e.Remaining, RetryAfter: retry, ResetAfter: retry, unix: e.unix}
	h := w.Header()
	setHeaders(h, d, now)

	p := problem{Type: "about:blank", Status: http.StatusTooManyRequests, Scope: e.Scope, RetryAfter: max(1, seconds(retry))}
	switch {
	case errors.Is(e, ErrUnavailable):
		p.Status = http.StatusServiceUnavailable
		p.Detail = "Rate limits cannot be checked at present."
	case e.Scope == ScopeUser:
		p.Limit, p.Window = e.Limit, e.Window.String()
		p.Detail = fmt.Sprintf("The limit of %d per %v is reached.", e.Limit, e.Window)
	default:
		p.Detail = "The service's rate limit is reached."
	}
	p.Title = http.StatusText(p.Status)

	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	h.Del("Content-Encoding")
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n'))
	}
}

// WriteLimited calls [WriteRefusal] if err is a refusal, and otherwise writes
// nothing and reports false: for handlers that get the error of a statement.
func WriteLimited(w http.ResponseWriter, r *http.Request, err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	WriteRefusal(w, r, e)
	return true
}
