package cachehook

import (
	"context"
	"errors"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func TestSecondReadIsServedFromMemory(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		equal(t, "first", db.price(t, 1), 10)
		equal(t, "second", db.price(t, 1), 10)
		equal(t, "queries", db.seen.queries.Load(), 1)
		equal(t, "from the database", db.seen.count(hook.Database), 1)
		equal(t, "from memory", db.seen.count(hook.L1), 1)
	})
}

func TestOwnWriteIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		for want := int64(1); want < 50; want++ {
			db.setPrice(t, 1, want)
			equal(t, "price", db.price(t, 1), want)
			equal(t, "again", db.price(t, 1), want)
		}
		if hits := db.seen.count(hook.L1) + db.seen.count(hook.L2); hits < 49 {
			t.Fatalf("%d hits: the cache is not in use: %+v", hits, db.cache.Stats())
		}
	})
}

func TestSecondInstanceIsServedFromRedis(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	a, b := open(t, dsn, Config{Redis: rdb, Name: name}), open(t, dsn, Config{Redis: rdb, Name: name})
	ready(t, a, b)
	equal(t, "a", a.price(t, 1), 10)
	eventually(t, "the fill has arrived in Redis", 5*time.Second, func() bool {
		keys, err := rdb.Keys(context.Background(), "infra:"+name+":cache:e:*").Result()
		return err == nil && len(keys) == 1
	})
	equal(t, "b", b.price(t, 1), 10)
	equal(t, "b's hits in Redis", b.seen.count(hook.L2), 1)
	equal(t, "b's queries", b.seen.queries.Load(), 0)
}

func TestOnlyOnRequest(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE others (id bigint PRIMARY KEY)`, `INSERT INTO others VALUES (1)`)
	db := open(t, dsn, Config{})
	var n int64
	for range 2 {
		must(t, db.Table("others").Count(&n).Error)
		must(t, db.Table("products").Joins("JOIN others ON others.id = products.id").Count(&n).Error)
		must(t, db.WithContext(Skip(context.Background())).Table("products").Count(&n).Error)
	}
	equal(t, "queries without rule or under Skip", db.seen.queries.Load(), 6)
	for range 2 {
		must(t, db.Clauses(TTL(time.Minute)).Table("others").Count(&n).Error)
		_, err := gorm.G[product](db.DB, Tags("x")).Where("id = ?", 1).First(context.Background())
		must(t, err)
	}
	equal(t, "queries with a clause", db.seen.queries.Load(), 8)
}

func TestNotFoundIsCachedAndEndsWithTheInsert(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, cfg Config) {
		db := open(t, database(t), cfg)
		ready(t, db)
		for range 2 {
			if err := db.First(&product{}, 1000).Error; !errors.Is(err, gorm.ErrRecordNotFound) {
				t.Fatal(err)
			}
		}
		equal(t, "queries", db.seen.queries.Load(), 1)
		must(t, db.Create(&product{ID: 1000, Price: 7}).Error)
		equal(t, "price", db.price(t, 1000), 7)
	})
}
