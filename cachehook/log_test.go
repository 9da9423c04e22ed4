package cachehook

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"gorm.io/gorm"
)

// logged is a log that a test can read while it is written.
type logged struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) lines(with string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, with) {
			found = append(found, line)
		}
	}
	return found
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestLogSaysThatThereIsNoRedisOnceSomethingIsCached(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	const text = "no Redis"
	for _, test := range []struct {
		name   string
		tables map[string]Rule
		start  int
	}{
		{"rules", map[string]Rule{"products": {TTL: time.Hour}}, 1},
		{"none", map[string]Rule{}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log logged
			db := open(t, dsn, Config{Name: "shop", Tables: test.tables, Logger: log.logger()})
			equal(t, "lines at start", len(log.lines(text)), test.start)
			db.price(t, 1)
			equal(t, "lines after a read", len(log.lines(text)), test.start)
			for range 2 {
				must(t, db.Clauses(TTL(time.Minute)).Find(&[]product{}).Error)
			}
			equal(t, "lines after something was stored", len(log.lines(text)), 1)
			equal(t, "lines that name the database", len(log.lines("db=shop")), len(log.lines("cachehook: ")))
			if test.start == 1 && len(log.lines("ttl=1h0m0s")) != 1 {
				t.Errorf("not the longest TTL: %q", log.lines(text))
			}
		})
	}
}

func TestLogNamesOnceTheRulesForTablesThatAreNotThere(t *testing.T) {
	t.Parallel()
	var log logged
	dsn := database(t)
	db := open(t, dsn, Config{
		Tables: map[string]Rule{"productz": {}, "Products": {}}, Logger: log.logger(),
		Affects: map[string][]string{"productx": {"productz"}, "products": {"Products", "producty"}},
	})
	db.price(t, 1)
	eventually(t, "warnings", 5*time.Second, func() bool { return len(log.lines("Affects names a table")) == 3 })
	must(t, db.Exec("CREATE TABLE more (id bigint)").Error) // the catalogue is read again
	for range 2 {
		db.price(t, 1)
	}
	equal(t, "of a rule", len(log.lines("Tables has a rule")), 1)
	equal(t, "of the names in Affects", len(log.lines("table=productx"))+len(log.lines("table=producty"))+len(log.lines("table=productz")), 3+1)
	equal(t, "warnings", len(log.lines("level=WARN")), 4)
}

func TestLogNamesOnceARuleAlthoughNoStatementEverFitsOne(t *testing.T) {
	t.Parallel()
	var log logged
	db := open(t, database(t), Config{Tables: map[string]Rule{"productz": {}}, Logger: log.logger()})
	db.price(t, 1)
	eventually(t, "a warning", 5*time.Second, func() bool { return len(log.lines("table=productz")) == 1 })
}

func TestLogSaysWhyRedisDoesNotAnswer(t *testing.T) {
	t.Parallel()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := gone.Addr().String()
	must(t, gone.Close())
	rdb := redis.NewClient(&redis.Options{Addr: addr}) // tries again for longer than the budget
	t.Cleanup(func() { _ = rdb.Close() })
	var log logged
	db := open(t, database(t), Config{Redis: rdb, Timeout: 20 * time.Millisecond, OnRedisFailure: FailWrite, Logger: log.logger()})
	for range tripAfter {
		db.price(t, 1)
	}
	eventually(t, "a line with the reason", 5*time.Second, func() bool { return len(log.lines("Redis does not answer")) == 1 })
	if line := log.lines("Redis does not answer")[0]; !strings.Contains(line, "connection refused") {
		t.Errorf("no reason in %s", line)
	}
	var met error
	eventually(t, "the breaker refuses", 5*time.Second, func() bool {
		met = db.cache.Invalidate(context.Background(), "tag")
		return errors.Is(met, errDown)
	})
	if !strings.Contains(met.Error(), "connection refused") {
		t.Errorf("no reason in %v", met)
	}
}

func TestLogTellsOnceThatRedisIsLostAndOnceThatItIsBack(t *testing.T) {
	t.Parallel()
	server := own(t)
	var log logged
	var ended atomic.Int64 // subscriptions
	cfg := Config{Redis: clientOf(t, server.Addr()), Lease: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Logger: log.logger()}
	db := openPrepared(t, database(t), cfg, &gorm.Config{}, func(c *Cache) {
		lost := c.channel.lost
		c.channel.lost = func() { ended.Add(1); lost() }
	})
	ready(t, db)
	db.price(t, 1)
	for outage := 1; outage <= 2; outage++ {
		must(t, server.Kill())
		db.setPrice(t, 1, int64(outage))
		eventually(t, "the channel's loss is told", 30*time.Second, func() bool { return len(log.lines("channel lost")) == outage })
		eventually(t, "the write that was not told is", 30*time.Second, func() bool { return len(log.lines("was not told of a write")) == outage })
		before := ended.Load()
		eventually(t, "it is tried again and again", 30*time.Second, func() bool { return ended.Load() > before+3 })
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		must(t, server.Start(ctx))
		cancel()
		eventually(t, "all is well", 30*time.Second, func() bool {
			s := db.cache.Stats()
			return s.Trusted && s.Quarantined == 0 && !s.BreakerOpen && len(log.lines("channel is back")) == outage && len(log.lines("told of all writes")) == outage
		})
		equal(t, "lines about the loss", len(log.lines("channel lost")), outage)
		equal(t, "lines about what was not told", len(log.lines("was not told of a write")), outage)
	}
	if line := log.lines("was not told of a write")[0]; !strings.Contains(line, "products") {
		t.Errorf("no table in %s", line)
	}
}

func TestLogSaysWhatToDoAboutWhatRedisAnswers(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	user := strings.ToLower(name)
	must(t, rdb.Do(context.Background(), "ACL", "SETUSER", user, "reset", "on", ">secret", "~*", "&*", "+@all", "-hgetall").Err())
	o := *rdb.(*redis.Client).Options()
	o.Username, o.Password = user, "secret"
	lacking := redis.NewClient(&o)
	t.Cleanup(func() { _ = lacking.Close() })
	var log logged
	db := open(t, database(t), Config{Redis: lacking, Name: name, Logger: log.logger()})
	eventually(t, "a line with advice", 30*time.Second, func() bool {
		equal(t, "price", db.price(t, 1), 10)
		return len(log.lines("Redis answers with an error")) > 0
	})
	if line := log.lines("Redis answers with an error")[0]; !strings.Contains(line, "lacks a right") {
		t.Errorf("no advice in %s", line)
	}
	eventually(t, "Ready says why", 30*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		err := db.cache.Ready(ctx)
		return errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "can't run this command")
	})
	db.price(t, 1)
	equal(t, "bypasses for the roster's sake", db.cache.Stats().Bypasses["roster"], 0)
}
