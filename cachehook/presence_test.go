package cachehook

import (
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

// presence explains the look-up of a product.
func (i *instance) presence(t testing.TB, id int64) Presence {
	t.Helper()
	x, err := i.cache.Explain(i.DB, func(tx *gorm.DB) error { return tx.First(&product{}, id).Error }, WithPresence)
	must(t, err)
	return *x[0].Presence
}

func TestC04ExplainTellsWhatIsKeptAndHowOld(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	cfg := Config{Redis: rdb, Name: name, Tables: map[string]Rule{"products": {TTL: time.Hour}}}
	a, b := open(t, dsn, cfg), open(t, dsn, cfg)
	ready(t, a, b)
	equal(t, "before the instances agree on the table", a.presence(t, 1).Reason, ReasonRoster)
	a.price(t, 1)
	b.price(t, 2)
	eventually(t, "kept in Redis", 30*time.Second, func() bool { return a.presence(t, 1).Redis.Valid })
	began := time.Now()

	p := a.presence(t, 1)
	if !p.Memory.Valid || p.Memory.Left > time.Hour || p.Memory.Left < 50*time.Minute || p.Memory.Age > time.Minute {
		t.Fatalf("in memory: %+v", p)
	}
	// Its hour is up to a tenth shorter.
	if p.Redis.Left > time.Hour || p.Redis.Left < 50*time.Minute || p.Redis.Age > 10*time.Minute || p.Redis.Bytes == 0 {
		t.Fatalf("in Redis: %+v", p)
	}
	if later := a.presence(t, 1); later.Memory.Age <= p.Memory.Age || later.Memory.Age > p.Memory.Age+time.Since(began)+time.Second {
		t.Fatalf("grew no older: %+v %+v", p, later)
	}
	p = b.presence(t, 1)
	if p.Reason != "" || p.Memory.Valid || p.Memory.Lacks != "cold" || !p.Redis.Valid {
		t.Fatalf("on the other instance: %+v", p)
	}
	equal(t, "who looked has not taken it", b.presence(t, 1).Memory.Valid, false)
	b.price(t, 1)
	equal(t, "L2 hits", b.cache.Stats().L2Hits, 1)

	b.setPrice(t, 1, 5)
	eventually(t, "another instance's write invalidates", 30*time.Second, func() bool {
		p = a.presence(t, 1)
		return !p.Memory.Valid && p.Memory.Lacks == "invalidated" && p.Redis.Lacks == "invalidated"
	})
	x, err := b.cache.Explain(b.DB, func(tx *gorm.DB) error { return tx.First(&product{}, 1).Error }, WithPresence)
	must(t, err)
	if want := "now          not in memory (invalidated), not in Redis (invalidated)"; !strings.Contains(x.String(), want) {
		t.Fatalf("%q is not in\n%s", want, x)
	}
}

func TestC03ExplainTellsOfAWriteUnderWay(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		db.price(t, 1)
		if p := db.presence(t, 1); !p.Memory.Valid {
			t.Fatalf("not kept: %+v", p)
		}
		tx := db.Begin()
		must(t, tx.Model(&product{ID: 1}).Update("price", 7).Error)
		equal(t, "before COMMIT it is served", db.presence(t, 1).Memory.Valid, true)
		held := db.cache.hold([]string{wholeTag(db.table(t, "products"))}) // as between mark and stamp
		equal(t, "while it commits", db.presence(t, 1).Reason, ReasonWriter)
		db.cache.release(held, true)
		equal(t, "afterwards", db.presence(t, 1).Reason, "")
		must(t, tx.Rollback().Error)
	})
}

func TestC06ExplainTellsThatRedisDoesNotAnswer(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	server, err := testbed.StartRedis(t.Context(), testbed.RedisConfig{})
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	db := open(t, database(t), Config{Redis: clientOf(t, server.Addr()), Name: namespace(t), Lease: RevalidateAlways, Timeout: time.Second})
	ready(t, db)
	db.price(t, 1)
	equal(t, "kept", db.presence(t, 1).Memory.Valid, true)
	must(t, server.Kill())
	p := db.presence(t, 1)
	if p.Memory.Valid || p.Redis.Valid || p.Reason != ReasonRedis && p.Reason != ReasonRoster {
		t.Fatalf("without Redis: %+v", p)
	}
	db.price(t, 1)
}

// TestC15ExplainTellsOfAResultThatIsTooLarge: nothing of it is kept but that.
func TestC15ExplainTellsOfAResultThatIsTooLarge(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{MaxResult: 100})
	list := func(tx *gorm.DB) error { return tx.Find(&[]product{}).Error }
	must(t, list(db.DB))
	x, err := db.cache.Explain(db.DB, list, WithPresence)
	must(t, err)
	if p := x[0].Presence; p.Reason != ReasonSize || p.Memory.Valid || p.Memory.Lacks != "cold" {
		t.Fatalf("too large: %+v", p)
	}
}

// TestC17ExplainTellsOfAnEnd: what has ended is not removed by who only looks.
func TestC17ExplainTellsOfAnEnd(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{Tables: map[string]Rule{"products": {TTL: 50 * time.Millisecond}, "orders": {}}})
	db.price(t, 1)
	eventually(t, "its TTL ends", 30*time.Second, func() bool { return db.presence(t, 1).Memory.Lacks == "expired" })
	equal(t, "entries", db.cache.Stats().Entries, 1)
	equal(t, "one that was never kept", db.presence(t, 2).Memory.Lacks, "cold")
}
