package resolver

import (
	"context"
	"errors"
	"time"

	"github.com/gorminfra/infra/internal/scope"
)

// lineage is the history that the primary writes on.
type lineage struct {
	system   uint64 // 0: not told
	timeline uint32
}

// heedToken makes a read ask for what the session's tokens say. A position means
// something on its own history only: on any other the primary has what is left.
func (r *Resolver) heedToken(q *question, h *handed) {
	here := r.lineage.Load()
	if h.primary || here == nil || here.system == 0 || h.system != here.system || h.timeline != here.timeline {
		q.toPrimary, q.why = true, reasonToken
		return
	}
	if h.lsn > q.minLSN {
		q.minLSN, q.fill = h.lsn, false
	}
}

// WithToken lets the work of the returned context see what the session that the
// token comes from wrote, and not go behind what it was shown; see
// [Resolver.Token]. In a scope that is for the scope. Of several tokens the
// farthest counts. A token that is forged, expired, of another database or of
// before a failover, or no token at all, sends the reads to the primary; the
// empty one says nothing. It does not block.
func (r *Resolver) WithToken(ctx context.Context, token string) context.Context {
	ctx, _ = r.withToken(ctx, token)
	return ctx
}

// withToken is WithToken, and reports whether the token could be read.
func (r *Resolver) withToken(ctx context.Context, token string) (_ context.Context, readable bool) {
	if token == "" {
		return ctx, false
	}
	parts, err := decodeTokens(token, r.keys(), time.Now())
	if err != nil {
		parts = unreadable
	}
	if optionsOf(ctx).sessions == nil && openScope(ctx) == nil {
		ctx = with(ctx, func(o *options) { o.sessions = &sessions{} })
	}
	r.receiveAll(ctx, parts)
	return ctx, err == nil
}

// bring notes the mark of the writers' cookies that came with the request.
func (s *session) bring(mark string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.brought = mark
}

// broughtMark is what bring has noted; nil has none.
func (s *session) broughtMark() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.brought
}

// unreadable is what a token tells that cannot be read.
var unreadable = []token{{part: everyPart, primary: true}}

func (r *Resolver) keys() [][]byte {
	s := &r.cfg.Session
	if len(s.Key) == 0 {
		return nil
	}
	return append([][]byte{s.Key}, s.OldKeys...)
}

// receive takes a token in.
func (s *session) receive(t token, r *Resolver) {
	now := r.now()
	var on *node
	for _, n := range r.replicas() {
		if t.boot != 0 && n.boot.Load() == t.boot {
			on = n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handed = s.handed.join(t)
	if t.boot == 0 {
		return // the position stands for what was shown, too
	}
	s.shown.told(on, now)
	s.handed.shown.told(on, now)
	s.last, s.other = nil, now
}

// told notes what was shown before now by a node; nil: by one that is not known.
func (g *glimpse) told(on *node, now int64) {
	switch {
	case g.at == 0 && on != nil:
		g.on, g.run = on, on.run.Load()
	case g.on != on:
		g.on = nil
	}
	g.at, g.since = max(g.at, now), now
}

// ErrNoKey is returned by Token when Config.Session has no Key.
var ErrNoKey = errors.New("resolver: Config.Session.Key is not set")

// Token returns a token of ctx's session, for work elsewhere that is to see what
// it wrote, and not to go behind what it was shown: put it into the message of a
// job, and use [Resolver.WithToken] there, with the same keys. Without a scope
// it speaks of all that the process wrote. It is empty when there is nothing to
// tell. The plugin's Middleware carries tokens between the requests of a client by
// itself.
//
// It waits for an answer of the primary that was asked after the last write, at
// most 50 ms or until ctx ends. If none comes, the token is one that means the
// primary until it expires. The only error is [ErrNoKey].
func (r *Resolver) Token(ctx context.Context) (string, error) {
	if len(r.cfg.Session.Key) == 0 {
		return "", ErrNoKey
	}
	if !r.opened.Load() {
		return "", nil
	}
	o, sc := optionsOf(ctx), scope.From(ctx)
	homes := r.homes()
	list := make([]*session, len(homes))
	for i, home := range homes {
		if list[i] = home.sessionOf(o, sc, false); o.sessions == nil && sc == nil {
			list[i] = &home.process
		}
	}
	parts := r.tokensOf(ctx, list)
	if len(parts) == 0 {
		return "", nil
	}
	return encodeTokens(parts, r.cfg.Session.Key), nil
}

// tokenPatience bounds the wait for the position that leaves with a token.
const tokenPatience = 50 * time.Millisecond

// tokenOf makes the token of a session; false when there is nothing to tell.
func (r *Resolver) tokenOf(ctx context.Context, s *session) (token, bool) {
	wrote := s.floor(r.now())
	seen, _, h := s.look(0)
	here := r.lineage.Load()
	t := token{part: r.part, expires: time.Now().Add(r.cfg.Session.TTL).Unix() + 1}
	known := h == nil || !h.primary && here != nil && h.system == here.system && h.timeline == here.timeline
	if h != nil && known {
		t.lsn = h.lsn
	}
	if on := seen.on; on != nil && seen.at > 0 && on.run.Load() == seen.run {
		t.boot = on.boot.Load()
	}
	after := wrote
	if t.boot == 0 {
		after = max(after, seen.at)
	}
	switch {
	case after == 0 && h == nil && t.boot == 0:
		return token{}, false
	case after == 0 && known && here != nil:
		t.system, t.timeline = here.system, here.timeline
		return t, true
	case after == 0:
		// A token came that meant the primary, and nothing was read or written since.
		// Whatever it stands for has happened.
		after = r.now()
	}
	p, err := r.sampleAfter(ctx, after, tokenPatience)
	if err != nil || p.system == 0 {
		return token{part: r.part, primary: true, expires: t.expires}, true
	}
	if t.lsn > p.lsn { // of a history that is no more
		t.lsn = 0
	}
	t.system, t.timeline, t.lsn = p.system, p.timeline, max(t.lsn, p.lsn)
	return t, true
}
