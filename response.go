package infra

import (
	"io"
	"net/http"

	"github.com/gorminfra/infra/internal/scope"
	"github.com/gorminfra/infra/limithook"
)

// response sees the header go out: that is when the session's token and the
// headers of limits and of debugging are added, and when a failure that a limit caused becomes a 429.
type response struct {
	http.ResponseWriter
	outer  http.ResponseWriter // the response with the abilities of the one below
	plugin *Plugin
	r      *http.Request
	scope  *scope.Scope

	status  int  // 0: no header yet
	limited bool // answered by us: what the handler writes is dropped
	told    bool // how the user stands by the limit of requests
}

func newResponse(w http.ResponseWriter, p *Plugin, r *http.Request, s *scope.Scope) *response {
	rw := &response{ResponseWriter: w, plugin: p, r: r, scope: s}
	// Programs find the abilities of a ResponseWriter by asserting: offer those
	// that are there and no others.
	_, flush := w.(http.Flusher)
	_, hijack := w.(http.Hijacker)
	switch {
	case flush && hijack:
		rw.outer = struct {
			*response
			flusher
			http.Hijacker
		}{rw, flusher{rw}, w.(http.Hijacker)}
	case flush:
		rw.outer = struct {
			*response
			flusher
		}{rw, flusher{rw}}
	case hijack:
		rw.outer = struct {
			*response
			http.Hijacker
		}{rw, w.(http.Hijacker)}
	default:
		rw.outer = rw
	}
	return rw
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// sent reports whether the header of an answer inside Middleware has gone out.
func sent(w http.ResponseWriter) bool {
	for {
		switch below := w.(type) {
		case interface{ sent() bool }:
			return below.sent()
		case interface{ Unwrap() http.ResponseWriter }:
			w = below.Unwrap()
		default:
			return false
		}
	}
}

func (w *response) sent() bool { return w.status != 0 }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols { // informational: the header is still to come
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.limited {
		return
	}
	if w.status == 0 {
		w.status = status
		w.plugin.resolver.WriteToken(w.r.Context(), w.Header())
		if w.refuse() {
			return
		}
		w.decorate()
	}
	w.ResponseWriter.WriteHeader(status)
}

// refuse answers in the handler's place when it failed because of a limit.
func (w *response) refuse() bool {
	if w.status < http.StatusInternalServerError {
		return false
	}
	refused := totalsSlot.Get(w.scope).lastRefusal()
	if refused == nil {
		return false
	}
	w.limited = true
	if w.plugin.cfg.Development {
		w.plugin.debugHeaders(w.Header(), w.scope)
	}
	w.Header().Del("Content-Length")
	w.Header().Del("Content-Encoding")
	limithook.WriteRefusal(&statusOnly{w.ResponseWriter, &w.status}, w.r, refused)
	return true
}

// statusOnly notes the status that is sent.
type statusOnly struct {
	http.ResponseWriter
	status *int
}

func (s *statusOnly) WriteHeader(status int) {
	*s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (w *response) decorate() {
	if d, ok := limithook.LastDecision(w.scope); ok && !w.told {
		limithook.SetHeaders(w.Header(), d)
	}
	if w.plugin.cfg.Development {
		w.plugin.debugHeaders(w.Header(), w.scope)
	}
}

// Write implements http.ResponseWriter.
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.limited {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// ReadFrom keeps the fast path of files.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.limited {
		return io.Copy(io.Discard, src)
	}
	return io.Copy(w.ResponseWriter, src)
}

// finish decorates the header of a handler that wrote nothing.
func (w *response) finish() {
	if w.status == 0 {
		w.plugin.resolver.WriteToken(w.r.Context(), w.Header())
		w.decorate()
	}
}

// codeAborted is the status of a request that got no answer: its handler
// panicked, or the client had gone. The number is nginx's for the latter.
const codeAborted = 499

// code is the status for metrics.
func (w *response) code(completed bool) int {
	switch {
	case w.status != 0:
		return w.status
	case !completed:
		return codeAborted
	}
	return http.StatusOK
}

type flusher struct{ w *response }

// Flush implements http.Flusher.
func (f flusher) Flush() {
	if f.w.status == 0 {
		f.w.WriteHeader(http.StatusOK)
	}
	if !f.w.limited {
		f.w.ResponseWriter.(http.Flusher).Flush()
	}
}
