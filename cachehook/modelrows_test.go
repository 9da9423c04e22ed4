package cachehook

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// commands notes the scripts that are sent, so that one can arrive once more.
type commands struct {
	client redis.UniversalClient

	mu   sync.Mutex          // guards the rest
	last map[[2]string][]any // by hash and key
	kept map[string][]any    // by who sent them
}

func recordCommands(t *testing.T, client redis.UniversalClient) *commands {
	t.Helper()
	for _, script := range []*redis.Script{anyServer.birth, anyServer.bump} {
		must(t, script.Load(context.Background(), client).Err())
	}
	c := &commands{client: client, last: make(map[[2]string][]any), kept: make(map[string][]any)}
	client.AddHook(c)
	return c
}

func (c *commands) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (c *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (c *commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.mu.Lock()
		for _, cmd := range cmds {
			if args := cmd.Args(); args[0] == "evalsha" {
				c.last[[2]string{args[1].(string), args[3].(string)}] = args
			}
		}
		c.mu.Unlock()
		return next(ctx, cmds)
	}
}

// keep says that the script which was sent last for the key is the one that may
// arrive again.
func (c *commands) keep(of string, script *redis.Script, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[of] = c.last[[2]string{script.Hash(), key}]
}

// madeOf reports whether the last script for the key has made the stamp.
func (c *commands) madeOf(s stamp, script *redis.Script, key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	args := c.last[[2]string{script.Hash(), key}]
	return args != nil && bytes.HasPrefix(args[4].([]byte), s[:8])
}

func (c *commands) arriveAgain(t *testing.T, of string) {
	t.Helper()
	c.mu.Lock()
	args := c.kept[of]
	c.mu.Unlock()
	if args == nil {
		t.Fatalf("nothing was sent by %s", of)
	}
	must(t, c.client.Do(context.Background(), args...).Err())
}

// askForRow asks for the row's tag, which goes before that of the table as a whole,
// and others may come between.
func (w *world) askForRow(v *visitor) {
	if v.stage != "asking" {
		return
	}
	a, err := v.at.store.(*gate).redisStore.lookup(context.Background(), w.tags[:1], "")
	must(w.t, err)
	v.row = &a
	if key := v.at.store.(*gate).tagKey(w.tags[0]); w.sent.madeOf(a.stamps[0], anyServer.birth, key) {
		w.sent.keep("birth", anyServer.birth, key)
	}
}

// rest asks for what has not been asked for yet.
func (v *visitor) rest(ctx context.Context, store *redisStore, tags []string, entry string) (answer, error) {
	if v.row == nil {
		return store.lookup(ctx, tags, entry)
	}
	a, err := store.lookup(ctx, tags[1:], entry)
	if err != nil {
		return a, err
	}
	for i := range a.marks {
		a.marks[i]++
	}
	if v.row.marked {
		a.marked, a.marks = true, append([]int{0}, a.marks...)
	}
	a.stamps = append(v.row.stamps, a.stamps...)
	return a, nil
}
