package cachehook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestFieldsOfATagSayWhetherAScriptIsNeeded(t *testing.T) {
	t.Parallel()
	r := &redisStore{markTTL: 5 * time.Second}
	now := time.Now()
	in := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).UnixMilli(), 10) }
	s := mint()
	stamped := string(s[:])
	for _, tt := range []struct {
		name   string
		fields map[string]string
		want   tagRead
	}{
		{"stamp alone", map[string]string{"s": stamped}, tagClean},
		{"missing", nil, tagUnclear},
		{"stamp of another length", map[string]string{"s": "x"}, tagUnclear},
		{"a mark that stands", map[string]string{"s": stamped, "m:a": in(time.Second)}, tagMarked},
		{"a mark that stands, no stamp yet", map[string]string{"m:a": in(time.Second)}, tagMarked},
		{"a mark that may have run out", map[string]string{"s": stamped, "m:a": in(-time.Second)}, tagUnclear},
		{"one of each", map[string]string{"s": stamped, "m:a": in(-time.Second), "m:b": in(time.Second)}, tagMarked},
		{"a mark beyond any writer's, of another clock", map[string]string{"s": stamped, "m:a": in(time.Hour)}, tagUnclear},
		{"a mark that is no number", map[string]string{"s": stamped, "m:a": "soon"}, tagUnclear},
	} {
		var got stamp
		if read := r.readFields(tt.fields, &got, now); read != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, read, tt.want)
		} else if read == tagClean && got != s {
			t.Errorf("%s: another stamp", tt.name)
		}
	}
}

// scripts is how many scripts the server has run.
func scripts(t *testing.T, rdb redis.UniversalClient) (n int) {
	t.Helper()
	text, err := rdb.Info(t.Context(), "commandstats").Result()
	must(t, err)
	for _, line := range strings.Split(text, "\r\n") {
		for _, name := range []string{"eval", "evalsha"} {
			var calls int
			if rest, ok := strings.CutPrefix(line, "cmdstat_"+name+":"); ok {
				if _, err := fmt.Sscanf(rest, "calls=%d,", &calls); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				n += calls
			}
		}
	}
	return n
}

func TestLookupRunsAScriptOnlyForATagThatIsMissingOrMarked(t *testing.T) {
	t.Parallel()
	rdb := clientOf(t, own(t).Addr()) // nobody else runs scripts there
	store := newRedisStore(rdb)
	store.guard = newGuard(20*time.Second, slog.New(slog.DiscardHandler))
	store.prefix, store.tagTTL, store.markTTL = "look:", time.Hour, 5*time.Second
	first, err := store.lookup(context.Background(), []string{everyTag, schemaTag}, "entry") // mints
	must(t, err)
	before := scripts(t, rdb)
	for range 10 {
		again, err := store.lookup(context.Background(), []string{everyTag, schemaTag}, "entry")
		must(t, err)
		if again.marked || !slices.Equal(again.stamps, first.stamps) {
			t.Fatalf("clean tags answer %+v, at first %+v", again, first)
		}
	}
	if n := scripts(t, rdb) - before; n != 0 {
		t.Errorf("%d scripts for 10 look-ups of clean tags", n)
	}
	must(t, rdb.HSet(t.Context(), store.tagKey(schemaTag), "m:dead", time.Now().Add(-time.Minute).UnixMilli()).Err())
	a, err := store.lookup(context.Background(), []string{everyTag, schemaTag}, "")
	must(t, err)
	if a.marked || a.stamps[0] == (stamp{}) || a.stamps[1] == (stamp{}) {
		t.Errorf("after a mark that had run out: %+v", a)
	}
	if left := rdb.HLen(t.Context(), store.tagKey(schemaTag)).Val(); left != 1 {
		t.Errorf("%d fields, want the new stamp alone", left)
	}
	must(t, rdb.Del(t.Context(), store.tagKey(everyTag)).Err())
	b, err := store.lookup(context.Background(), []string{everyTag, schemaTag}, "")
	must(t, err)
	if b.stamps[0] == a.stamps[0] || b.stamps[0] == (stamp{}) || b.stamps[1] != a.stamps[1] {
		t.Errorf("after one of two tags was lost: %v, before %v", b.stamps, a.stamps)
	}
	must(t, rdb.HSet(t.Context(), store.tagKey(schemaTag), "m:alive", time.Now().Add(time.Second).UnixMilli()).Err())
	before = scripts(t, rdb)
	if a, err = store.lookup(context.Background(), []string{everyTag, schemaTag}, ""); err != nil || !a.marked {
		t.Errorf("while a mark stands: %+v, %v", a, err)
	}
	if n := scripts(t, rdb) - before; n != 0 {
		t.Errorf("%d scripts to see a mark that stands", n)
	}
}

// TestLookupIsGivenUpAtItsBudget meets what a context alone does not end: a
// server that does not answer, and a dialer that minds no context.
func TestLookupIsGivenUpAtItsBudget(t *testing.T) {
	t.Parallel()
	const budget = 50 * time.Millisecond
	frozen := own(t)
	stuck := make(chan struct{})
	t.Cleanup(func() { close(stuck) })
	dial := func(context.Context, string, string) (net.Conn, error) {
		<-stuck
		return nil, errors.New("the test is over")
	}
	dialling := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", Dialer: dial, DialerRetries: 1, MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = dialling.Close() })
	minding := redis.NewClient(&redis.Options{Addr: frozen.Addr(), ReadTimeout: time.Minute, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = minding.Close() })
	for name, rdb := range map[string]redis.UniversalClient{"frozen server": minding, "stuck dialer": dialling} {
		g := newGuard(budget, slog.New(slog.DiscardHandler))
		r := newRedisStore(rdb)
		r.guard = g
		if name == "frozen server" {
			_, err := r.fetch(context.Background(), "warm")
			must(t, err)
			must(t, frozen.Freeze())
			defer func() { must(t, frozen.Thaw()) }()
		}
		began := time.Now()
		_, err := r.fetch(context.Background(), "entry")
		took := time.Since(began)
		if !errors.Is(err, errSlow) {
			t.Errorf("%s: %v, want %v", name, err, errSlow)
		}
		if took < budget || took > budget+20*time.Second { // a busy machine; go-redis itself would wait for much longer
			t.Errorf("%s: given up after %v, want %v", name, took, budget)
		}
		if !r.prompt {
			t.Errorf("%s: took a goroutine", name)
		}
		g.stop()
	}
}

func TestOnlyClientsThatMindTheContextAreCalledWithoutAGoroutine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		o    redis.Options
		want bool
	}{
		{"as usual", redis.Options{}, false},
		{"told to", redis.Options{ContextTimeoutEnabled: true}, true},
		{"that has no timeouts of its own", redis.Options{ContextTimeoutEnabled: true, ReadTimeout: -1}, true},
		{"that sets no deadlines", redis.Options{ContextTimeoutEnabled: true, ReadTimeout: -2}, false},
	} {
		tt.o.Addr = "127.0.0.1:1"
		rdb := redis.NewClient(&tt.o)
		t.Cleanup(func() { _ = rdb.Close() })
		if got := newRedisStore(rdb).prompt; got != tt.want {
			t.Errorf("a client %s: %v, want %v", tt.name, got, tt.want)
		}
	}
	replicas := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, ReadOnly: true})
	t.Cleanup(func() { _ = replicas.Close() })
	if r := newRedisStore(replicas); r.plain || r.prompt {
		t.Error("tags would be read from replicas")
	}
	masters := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	t.Cleanup(func() { _ = masters.Close() })
	if r := newRedisStore(masters); !r.plain || r.prompt {
		t.Error("a Cluster's masters can be asked plainly, and take a goroutine")
	}
}
