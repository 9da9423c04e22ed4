package cachehook

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// rightsInTheGuide are the commands that the guide says a user of Redis' own needs.
func rightsInTheGuide(t *testing.T) (commands []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/caching.md")
	must(t, err)
	row := regexp.MustCompile("(?m)^\\| ACL \\| `([A-Z ]+)`").FindSubmatch(text)
	if row == nil {
		t.Fatal("the guide has no row about ACL")
	}
	return strings.Fields(strings.ToLower(string(row[1])))
}

// A user of Redis who may do no more than the guide lists.
func TestTheRightsInTheGuideSuffice(t *testing.T) {
	t.Parallel()
	admin, name := client(t)
	ctx := context.Background()
	user := strings.ToLower(name)
	own := "infra:" + name + ":cache:*"
	rule := []any{"ACL", "SETUSER", user, "reset", "on", ">secret", "~" + own, "&" + own}
	for _, command := range rightsInTheGuide(t) {
		rule = append(rule, "+"+command)
	}
	must(t, admin.Do(ctx, rule...).Err())
	t.Cleanup(func() { must(t, admin.Do(ctx, "ACL", "DELUSER", user).Err()) })
	rdb := redis.NewClient(&redis.Options{
		Addr: testbed.SharedRedis(t).Addr(), Username: user, Password: "secret", DisableIdentity: true,
	})
	t.Cleanup(func() { _ = rdb.Close() })

	dsn := database(t)
	a, b := open(t, dsn, Config{Redis: rdb, Name: name}), open(t, dsn, Config{Redis: rdb, Name: name})
	ready(t, a, b)
	for _, i := range []*instance{a, b} {
		eventually(t, "it is cached", time.Minute, func() bool {
			i.price(t, 1)
			return i.seen.count(hook.L1) > 0
		})
		all := i.text(t, "SELECT count(*)::text FROM products")
		equal(t, "products", all, "100")
	}
	a.setPrice(t, 1, 11)
	eventually(t, "b hears of the write", time.Minute, func() bool { return b.price(t, 1) == 11 })
	tx := a.Begin()
	must(t, tx.Exec("UPDATE products SET price = 12").Error)
	must(t, tx.Rollback().Error)
	must(t, a.cache.Set(ctx, "key", []byte("value"), time.Minute, "tag"))
	must(t, a.cache.Invalidate(ctx, "tag"))
	for _, i := range []*instance{a, b} {
		equal(t, "errors of Redis", i.cache.Stats().RedisErrors, 0)
	}

	log, err := admin.Do(ctx, "ACL", "LOG").Slice()
	must(t, err)
	for _, entry := range log {
		if refused, ok := entry.(map[any]any); ok && refused["username"] == user {
			t.Errorf("Redis refused %v of %v", refused["object"], refused["reason"])
		}
	}
}
