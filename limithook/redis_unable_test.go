package limithook

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

// said keeps what a logger was told.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), what)
}

// A server that answers and cannot write is as good as none: it counts as down until
// it can, and not in turns.
func TestL04RedisThatCannotWriteIsDownUntilItCan(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ unable, able []any }{
		"demoted":   {[]any{"replicaof", "127.0.0.1", "1"}, []any{"replicaof", "no", "one"}},
		"no memory": {[]any{"config", "set", "maxmemory", "1"}, []any{"config", "set", "maxmemory", "0"}},
		"not saved": {[]any{"config", "set", "min-replicas-to-write", "1"}, []any{"config", "set", "min-replicas-to-write", "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log said
			server, l := mortal(t, Config{
				PerUser: PerMinute(1000), OnRedisFailure: Closed, Lease: Lease{Max: 1}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			do := func(args []any) {
				t.Helper()
				if _, err := server.Do(t.Context(), args...); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "Redis is in use", func() bool { return l.Allow(as("a")) == nil })
			do(c.unable)
			eventually(t, "Redis counts as down", func() bool { _ = l.Allow(as("a")); return l.Stats().Down })
			warned := log.count("level=WARN")
			asked := l.Stats().RedisCalls
			eventually(t, "it is probed several times", func() bool {
				if err := l.Allow(as("a")); err == nil {
					t.Error("admitted")
				}
				return l.Stats().RedisCalls >= asked+5
			})
			if st := l.Stats(); !st.Down || log.count("level=WARN") > max(warned, 1) || log.count("answers again") > 0 {
				t.Errorf("%d warnings, %d times back in use; %+v", log.count("level=WARN"), log.count("answers again"), st)
			}
			do(c.able)
			eventually(t, "Redis is in use again", func() bool { return l.Allow(as("a")) == nil && !l.Stats().Down })
		})
	}
}

// The guide says which rights the limits need of Redis.
func TestRightsThatTheGuideNamesAreEnough(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rights, found := strings.Cut(string(guide), "needs `~{limits:NAME*` and `")
	rights, _, ended := strings.Cut(rights, "`")
	if !found || !ended {
		t.Fatal("the guide names no rights")
	}
	server := testbed.NewRedis(t, testbed.RedisConfig{})
	args := []any{"acl", "setuser", "few", "on", ">secret", "~{limits:shop*", "+hello", "+client"}
	for right := range strings.FieldsSeq(rights) {
		args = append(args, right)
	}
	if _, err := server.Do(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "few", Password: "secret"})
	t.Cleanup(func() { _ = c.Close() })
	for name, cfg := range map[string]Config{
		"shop":      {PerUser: Per(320, 700*time.Millisecond), Global: Per(3200, 700*time.Millisecond), Rules: []Rule{{Name: "tenant", Key: tenantOf, Rate: PerMinute(400)}}},
		"shop:http": {Global: Limit{Max: 320, Window: 400 * time.Millisecond, Shards: 4}},
	} {
		cfg.Redis, cfg.Name, cfg.OnRedisFailure, cfg.Timeout = c, name, Closed, 5*time.Second
		l := testLimiter(t, cfg, monotonic)
		ctx := tenant(as("a"), "acme")
		for round := range 3 { // until something has expired
			for range 60 {
				if err := l.Allow(ctx); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if round < 2 {
				pause(t.Context(), cfg.Global.Window+50*time.Millisecond)
			}
		}
		for range 40 { // to a refusal
			if err := l.AllowN(ctx, 20); err != nil && !errors.Is(err, ErrLimited) || errors.Is(err, ErrUnavailable) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		errs := map[string]error{"reset": l.ResetGlobal(t.Context()), "probe": l.shared.logs.probe(t.Context()), "second probe": l.shared.logs.probe(t.Context())}
		if name == "shop" {
			errs["reset of a rule"] = l.ResetRule(t.Context(), "tenant", "acme")
			errs["reset of a user"] = l.Reset(t.Context(), "a")
		}
		if err := l.Allow(tenant(as("b"), "other")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, err := range errs {
			if err != nil {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		if err := l.Close(); err != nil || l.Stats().RedisErrors > 0 {
			t.Errorf("%s: %v, %+v", name, err, l.Stats())
		}
	}
	denied, err := server.Do(t.Context(), "acl", "log")
	if list, _ := denied.([]any); err != nil || len(list) > 0 {
		t.Errorf("denied: %v, %v", denied, err)
	}
}
