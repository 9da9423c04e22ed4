package main

import "context"

// tokenOf is empty until sessions can leave a process.
func (w *worker) tokenOf(context.Context) string { return "" }

func (w *worker) withToken(ctx context.Context, _ string) context.Context { return ctx }
