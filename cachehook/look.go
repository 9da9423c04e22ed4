package cachehook

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// newRedisStore tells what can be asked of the client, and how.
func newRedisStore(client redis.UniversalClient) *redisStore {
	r := &redisStore{client: client, scripts: anyServer}
	switch c := client.(type) {
	case *redis.Client:
		r.plain = true
		r.prompt = prompt(c.Options())
	case clusterClient:
		o := c.Options()
		if r.plain = !o.ReadOnly && !o.RouteByLatency && !o.RouteRandomly; !r.plain {
			r.scripts = masters
		}
	}
	return r
}

// prompt reports whether a call of the client ends when its context does, so that
// nobody need be able to leave it behind: one that sets deadlines, and was told to
// mind those of contexts.
func prompt(o *redis.Options) bool {
	return o.ContextTimeoutEnabled && o.ReadTimeout >= 0 && o.WriteTimeout >= 0
}

// look is pipelined for questions. They are not given up before the budget, so
// that a client which minds the context's deadline needs nobody to leave behind.
func (r *redisStore) look(ctx context.Context, op string, fill func(p redis.Pipeliner, run runner)) error {
	if !r.prompt || ctx.Done() != nil {
		return r.pipelined(ctx, op, fill)
	}
	err := r.guard.direct(ctx, func(ctx context.Context) error { return r.send(ctx, fill) })
	if err != nil {
		return redisError(op, err)
	}
	return nil
}

// lookup implements store. A tag is nearly always there and without a mark, and
// then it takes no script to read it: a script costs the server as much as ten
// plain commands. The others are read by script, in a second round trip. A row's tag
// is often not there, so that the first one makes it where it is missing. An HSETNX
// would do that but for its arriving twice: it knows no clock, and would give a tag
// that was written and then evicted in between its first stamp again. So it is a
// script, which only looks whether the tag is there if it is: a third of a
// microsecond more of Redis' time, and two and a half where the tag is made.
func (r *redisStore) lookup(ctx context.Context, tags []string, entry string) (answer, error) {
	if !r.plain {
		return r.lookupByScript(ctx, tags, entry)
	}
	var e entryRead
	fields := make([]*redis.MapStringStringCmd, len(tags))
	err := r.look(ctx, "look up", func(p redis.Pipeliner, run runner) {
		for i, tag := range tags {
			if isRow(tag) {
				fresh := mint()
				run(r.scripts.birth, r.tagKey(tag), fresh[:], r.tagTTL.Milliseconds())
			}
			fields[i] = p.HGetAll(context.Background(), r.tagKey(tag))
		}
		e.ask(p, r, entry)
	})
	if err != nil {
		return answer{}, err
	}
	a := answer{stamps: make([]stamp, len(tags))}
	var unclear []string
	for i, cmd := range fields {
		switch r.readFields(cmd.Val(), &a.stamps[i], time.Now()) {
		case tagMarked:
			a.marked, a.marks = true, append(a.marks, i)
		case tagUnclear:
			unclear = append(unclear, tags[i])
		}
	}
	e.take(&a)
	if a.marked || unclear == nil {
		return a, nil
	}
	rest, err := r.lookupByScript(ctx, unclear, "")
	if err != nil {
		return answer{}, err
	}
	for i, j := 0, 0; j < len(unclear); i++ {
		if tags[i] == unclear[j] {
			a.stamps[i] = rest.stamps[j]
			if slices.Contains(rest.marks, j) {
				a.marked, a.marks = true, append(a.marks, i)
			}
			j++
		}
	}
	return a, nil
}

// tagRead is what the fields of a tag say.
type tagRead uint8

const (
	tagClean   tagRead = iota
	tagMarked          // a mark stands
	tagUnclear         // there is no stamp, or a mark that may have run out
)

// readFields reads a tag. Whether a mark has run out is for Redis' clock to say:
// by ours, one only counts as standing for as long as it can.
func (r *redisStore) readFields(fields map[string]string, into *stamp, now time.Time) (read tagRead) {
	for name, value := range fields {
		if name == "s" {
			continue
		}
		ends, err := strconv.ParseInt(value, 10, 64)
		if left := ends - now.UnixMilli(); err == nil && left > 0 && left <= r.markTTL.Milliseconds() {
			return tagMarked
		}
		read = tagUnclear
	}
	s, ok := stampOf(fields["s"])
	if !ok {
		return tagUnclear
	}
	*into = s
	return read
}

func (r *redisStore) lookupByScript(ctx context.Context, tags []string, entry string) (answer, error) {
	var e entryRead
	reads := make([]*redis.Cmd, len(tags))
	err := r.look(ctx, "look up", func(p redis.Pipeliner, run runner) {
		for i, tag := range tags {
			fresh := mint()
			reads[i] = run(r.scripts.read, r.tagKey(tag), fresh[:], r.tagTTL.Milliseconds())
		}
		e.ask(p, r, entry)
	})
	if err != nil {
		return answer{}, err
	}
	a := answer{stamps: make([]stamp, len(tags))}
	for i, cmd := range reads {
		marked, err := readAnswer(cmd, &a.stamps[i])
		if err != nil {
			return answer{}, redisError("look up", err)
		}
		if marked {
			a.marked, a.marks = true, append(a.marks, i)
		}
	}
	e.take(&a)
	return a, nil
}

func readAnswer(cmd *redis.Cmd, into *stamp) (marked bool, err error) {
	parts, err := cmd.Slice()
	if err != nil {
		return false, err
	}
	if len(parts) == 2 {
		text, isText := parts[0].(string)
		marks, isNumber := parts[1].(int64)
		s, ok := stampOf(text)
		if isText && isNumber && ok {
			*into = s
			return marks > 0, nil
		}
	}
	return false, fmt.Errorf("a tag answers %v: %w", parts, errCorrupt)
}

// entryRead reads an entry and for how long it lives on.
type entryRead struct {
	get *redis.StringCmd
	ttl *redis.DurationCmd
}

// ask adds the commands, unless the name is empty.
func (e *entryRead) ask(p redis.Pipeliner, r *redisStore, name string) {
	if name != "" {
		key := r.entryKey(name)
		e.get, e.ttl = p.Get(context.Background(), key), p.PTTL(context.Background(), key)
	}
}

// take notes the entry, if there is one and it lives on.
func (e *entryRead) take(a *answer) {
	if e.get == nil || e.get.Err() != nil || e.ttl.Err() != nil || e.ttl.Val() <= 0 {
		return
	}
	a.data, _ = e.get.Bytes()
	a.ttl = e.ttl.Val()
}

// fetch implements store.
func (r *redisStore) fetch(ctx context.Context, entry string) (a answer, err error) {
	var e entryRead
	if err := r.look(ctx, "read", func(p redis.Pipeliner, _ runner) { e.ask(p, r, entry) }); err != nil {
		return answer{}, err
	}
	e.take(&a)
	return a, nil
}
