package cachehook

import "context"

// tenant is for whom something is read. The zero value is nobody: none was
// declared.
type tenant struct {
	key      string
	declared bool
}

type tenantKey struct{}

// WithTenant declares that what is read and kept under the returned context is
// for the tenant of that key alone: it is never served to another one, nor where
// no tenant is declared. It goes before [Config.Tenant].
//
// It is a declaration, and nothing else: no session is told of it but those that
// follow it by [SessionTenant]. Whoever declares a tenant promises that the
// database answers the statements outside transactions under this context as it
// would answer any other of the same key: that key stands for all that row-level
// security looks at, be it a role or a setting. The cache cannot see the session
// that the pool will choose, and so cannot check it.
//
// An empty key is no tenant: nothing under row-level security is cached with it.
// It is yet apart from all others, and from having none, so that WithTenant(ctx,
// "") is for values by hand that belong to all tenants.
func WithTenant(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, tenantKey{}, tenant{key, true})
}

// tenantOf returns what is declared for a context. It runs on the caller's
// goroutine.
func (c *Cache) tenantOf(ctx context.Context) tenant { return tenantOf(ctx, c.cfg.Tenant) }

func tenantOf(ctx context.Context, otherwise func(context.Context) (string, bool)) (t tenant) {
	if t, declared := ctx.Value(tenantKey{}).(tenant); declared {
		return t
	}
	if otherwise != nil {
		if t.key, t.declared = otherwise(ctx); !t.declared {
			return tenant{}
		}
	}
	return t
}

// named reports whether it may read under row-level security.
func (t tenant) named() bool { return t.key != "" }

// append writes the tenant to a key: whether there is one, and which.
func (t tenant) append(b []byte) []byte {
	if !t.declared {
		return append(b, tagNil)
	}
	return appendString(append(b, tagString), t.key)
}

// of returns the tenant by which the plan's results are kept apart; ok is false when
// they cannot be kept for it.
func (p *plan) of(t tenant) (_ tenant, ok bool) {
	switch {
	case p.secured != "":
		return t, t.named()
	case p.terms.shared:
		return tenant{}, true
	}
	return t, true
}
