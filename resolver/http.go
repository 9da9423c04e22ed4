package resolver

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// This file carries tokens in HTTP. The plugin's Middleware calls it; a program
// with a framework of its own may, too.

// ReadToken takes the request's token into the session of ctx, as
// [Resolver.WithToken] does. It reads the cookie, or the header, that
// Config.Session names; without a Key it returns ctx.
func (r *Resolver) ReadToken(ctx context.Context, req *http.Request) context.Context {
	if len(r.cfg.Session.Key) == 0 || !r.live.Load() {
		return ctx
	}
	s := &r.cfg.Session
	if s.Header {
		for _, v := range req.Header.Values(s.Name) {
			ctx = r.WithToken(ctx, v) //nolint:fatcontext // of few tokens the larger counts
		}
		return ctx
	}
	for _, c := range req.CookiesNamed(s.Name) {
		ctx = r.WithToken(ctx, c.Value) //nolint:fatcontext // as above
	}
	return ctx
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
		c := http.Cookie{
			Name: cfg.Name, Value: text, Path: cfg.Path, Domain: cfg.Domain, MaxAge: int(cfg.TTL / time.Second),
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
