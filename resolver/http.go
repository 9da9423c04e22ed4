package resolver

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// This file carries tokens in HTTP. The plugin's Middleware calls it; a program
// with a framework of its own may, too.

// Requests of one client overlap. A read that began before a write returned, and is
// answered after it, must not take the write's token away: so reads have a cookie of
// their own. It names the writer's cookie that it stands for too, since a reader
// cannot replace that one without the same danger.

// readSuffix follows Session.Name in the name of the cookie that reads set.
const readSuffix = "-read"

// coverSign stands in a reader's cookie between its token and the mark of the
// writer's cookie that this stands for.
const coverSign = "."

// maxBrought is how many tokens of one request are read, since each costs a few
// microseconds. Who brings more is sent to the primary.
const maxBrought = 16

// tooMany stands for the tokens of a request that brought more: it cannot be read.
var tooMany = []string{"too many"}

// ReadToken takes the request's token into the session of ctx, as
// [Resolver.WithToken] does. It reads the cookies, or the header, that
// Config.Session names; without a Key it returns ctx.
func (r *Resolver) ReadToken(ctx context.Context, req *http.Request) context.Context {
	if len(r.cfg.Session.Key) == 0 || !r.live.Load() {
		return ctx
	}
	s := &r.cfg.Session
	if s.Header {
		values := req.Header.Values(s.Name)
		if len(values) > maxBrought {
			values = tooMany
		}
		for _, v := range values {
			ctx = r.WithToken(ctx, v) //nolint:fatcontext // of few tokens the larger counts
		}
		return ctx
	}
	written, read := req.CookiesNamed(s.Name), req.CookiesNamed(s.Name+readSuffix)
	if len(written)+len(read) > maxBrought {
		return r.WithToken(ctx, tooMany[0])
	}
	mark := markOf(written)
	covered := false
	for _, c := range read {
		text, covers, _ := strings.Cut(c.Value, coverSign)
		var readable bool
		ctx, readable = r.withToken(ctx, text) //nolint:fatcontext // as above
		covered = covered || readable && covers == mark
	}
	if mark == "" {
		return ctx
	}
	if !covered {
		for _, c := range written {
			ctx = r.WithToken(ctx, c.Value) //nolint:fatcontext // as above
		}
	}
	r.sessionAt(ctx).bring(mark)
	return ctx
}

// markOf tells what writers' cookies a request brought from all others; empty when
// it brought none.
func markOf(cookies []*http.Cookie) string {
	if len(cookies) == 0 {
		return ""
	}
	h := xxhash.New()
	for _, c := range cookies {
		_, _ = h.WriteString(c.Value + "\n")
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// WriteToken puts the token of ctx's session into a response's header h, before
// it is sent, if there is news for the client: it wrote, or was shown what the
// token that it brought does not stand for. It waits as [Resolver.Token] does.
//
// A shared cache must not keep a response with one client's token. Where the
// client wrote, public and s-maxage are taken out of Cache-Control and private
// is added; where it only read, a response that is declared public stays as it
// is, without a token; any other is made private.
func (r *Resolver) WriteToken(ctx context.Context, h http.Header) {
	if len(r.cfg.Session.Key) == 0 || !r.live.Load() {
		return
	}
	o, sc := optionsOf(ctx), openScope(ctx)
	homes := r.homes()
	list := make([]*session, len(homes))
	wrote, news := false, false
	for i, home := range homes {
		if s := home.sessionOf(o, sc, false); s != nil {
			list[i] = s
			wrote = wrote || s.floor(r.now()) > 0
			news = news || home.news(s)
		}
	}
	cfg := &r.cfg.Session
	if !news || !wrote && (cfg.WritesOnly || public(h)) {
		return
	}
	parts := r.tokensOf(ctx, list)
	if len(parts) == 0 {
		return
	}
	text := encodeTokens(parts, cfg.Key)
	if cfg.Header {
		h.Set(cfg.Name, text)
	} else {
		name := cfg.Name
		if !wrote {
			name += readSuffix
			if mark := list[0].broughtMark(); mark != "" {
				text += coverSign + mark
			}
		}
		c := http.Cookie{
			Name: name, Value: text, Path: cfg.Path, Domain: cfg.Domain, MaxAge: int(cfg.TTL / time.Second),
			Secure: !cfg.Insecure, HttpOnly: true, SameSite: cfg.SameSite,
		}
		h.Add("Set-Cookie", c.String())
	}
	makePrivate(h)
}

// news reports whether the session has something to hand on that its client has
// not: nothing as long as it stays where its token said, until half of the
// token's time is over.
func (r *Resolver) news(s *session) bool {
	if s.floor(r.now()) > 0 {
		return true
	}
	seen, _, h := s.look(0)
	switch {
	case seen.at == 0:
		return false
	case h == nil || h.primary || seen.on == nil || h.boot == 0 || seen.on.boot.Load() != h.boot:
		return true
	}
	return time.Until(time.Unix(h.expires, 0)) < r.cfg.Session.TTL/2
}

// public reports whether the response declares that shared caches may keep it.
func public(h http.Header) bool {
	for directive := range directives(h) {
		if name := nameOfDirective(directive); name == "public" || name == "s-maxage" {
			return true
		}
	}
	return false
}

// makePrivate keeps shared caches from storing the response.
func makePrivate(h http.Header) {
	kept := []string{"private"}
	for directive := range directives(h) {
		switch nameOfDirective(directive) {
		case "no-store":
			return
		case "public", "s-maxage", "private":
		default:
			kept = append(kept, directive)
		}
	}
	h.Set("Cache-Control", strings.Join(kept, ", "))
}

// directives yields those of Cache-Control.
func directives(h http.Header) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, line := range h.Values("Cache-Control") {
			for line != "" {
				var d string
				d, line = cutDirective(line)
				if d != "" && !yield(d) {
					return
				}
			}
		}
	}
}

// cutDirective cuts at the first comma outside of quotes.
func cutDirective(line string) (first, rest string) {
	quoted := false
	for i := range len(line) {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ',' && !quoted:
			return strings.TrimSpace(line[:i]), line[i+1:]
		}
	}
	return strings.TrimSpace(line), ""
}

func nameOfDirective(d string) string {
	name, _, _ := strings.Cut(d, "=")
	return strings.ToLower(strings.TrimSpace(name))
}
