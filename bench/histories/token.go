package main

import "context"

// tokenOf is the token of ctx's session; empty when there is nothing to carry.
func (w *worker) tokenOf(ctx context.Context) string {
	token, err := w.plugin.Resolver().Token(ctx)
	if err != nil {
		w.say(answer{Did: "failed", Error: err.Error()})
	}
	return token
}

// withToken continues in ctx the session that the token comes from.
func (w *worker) withToken(ctx context.Context, token string) context.Context {
	return w.plugin.Resolver().WithToken(ctx, token)
}
