package limithook

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
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
