package main

import (
	"context"
	"sync"

	"github.com/go-gorm/caches/v4"
)

// mapCacher is the memory of go-gorm/caches, as its documentation makes it.
type mapCacher struct{ store sync.Map }

var _ caches.Cacher = (*mapCacher)(nil)

// Get implements caches.Cacher.
func (c *mapCacher) Get(_ context.Context, key string, q *caches.Query[any]) (*caches.Query[any], error) {
	v, ok := c.store.Load(key)
	if !ok {
		return nil, nil //nolint:nilnil // that is how a miss is told there
	}
	return q, q.Unmarshal(v.([]byte))
}

// Store implements caches.Cacher.
func (c *mapCacher) Store(_ context.Context, key string, q *caches.Query[any]) error {
	b, err := q.Marshal()
	if err == nil {
		c.store.Store(key, b)
	}
	return err
}

// Invalidate implements caches.Cacher.
func (c *mapCacher) Invalidate(context.Context) error {
	c.store.Clear()
	return nil
}
