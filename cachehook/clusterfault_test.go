package cachehook

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

// background reads and writes at two instances until stop is called, which returns
// how often.
func background(t *testing.T, writer, reader *instance) (stop func() int64) {
	var n atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for price := int64(1000); ; price++ {
			select {
			case <-done:
				return
			default:
			}
			if err := writer.Model(&product{ID: 1}).Update("price", price).Error; err != nil {
				t.Errorf("a write while Redis changes: %v", err)
				return
			}
			wrote := time.Now()
			for began := wrote; ; began = time.Now() {
				var p product
				if err := reader.First(&p, 1).Error; err != nil {
					t.Errorf("a read while Redis changes: %v", err)
					return
				}
				if p.Price == price {
					break
				}
				if late := began.Sub(wrote); late > reader.cache.cfg.Lease+time.Second {
					t.Errorf("price %d instead of %d %v after the write", p.Price, price, late)
					return
				}
			}
			n.Add(1)
		}
	}()
	return func() int64 {
		close(done)
		<-ended
		return n.Load()
	}
}

// subscribed returns how many subscriptions to the instance's channel its node has.
func subscribed(t *testing.T, node *testbed.Redis, i *instance) int64 {
	t.Helper()
	reply, err := node.Do(t.Context(), "PUBSUB", "SHARDNUMSUB", i.cache.channel.name)
	must(t, err)
	list, _ := reply.([]any)
	if len(list) != 2 {
		t.Fatalf("SHARDNUMSUB says %v", reply)
	}
	n, _ := list[1].(int64)
	return n
}

// The channel's slot goes to another node and back while there is traffic.
func TestC06ClusterChannelMoves(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{})
	a, b := c.open(t, Config{}), c.open(t, Config{})
	ready(t, a, b)
	cached(t, a, b)
	slot, shard := slotOf(b.cache.channel.name)
	stop := background(t, a, b)
	do := func(node *testbed.Redis, args ...any) any {
		t.Helper()
		reply, err := node.Do(c.ctx, args...)
		must(t, err)
		return reply
	}
	from, _, err := c.Shard(c.ctx, shard)
	must(t, err)
	for round := range 2 {
		to, _, err := c.Shard(c.ctx, (shard+1+round)%3)
		must(t, err)
		if round == 1 {
			to, _, err = c.Shard(c.ctx, shard)
			must(t, err)
		}
		eventually(t, "both are subscribed", time.Minute, func() bool { return subscribed(t, from, b) == 2 })
		fromID, toID := do(from, "CLUSTER", "MYID"), do(to, "CLUSTER", "MYID")
		do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
		do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
		for {
			keys, _ := do(from, "CLUSTER", "GETKEYSINSLOT", slot, 10).([]any)
			if len(keys) == 0 {
				break
			}
			args := []any{"MIGRATE", "127.0.0.1", fmt.Sprint(to.Port()), "", 0, 5000, "KEYS"}
			do(from, append(args, keys...)...)
		}
		for _, node := range []*testbed.Redis{to, from} {
			do(node, "CLUSTER", "SETSLOT", slot, "NODE", toID)
		}
		eventually(t, "both are subscribed where the slot is", time.Minute, func() bool { return subscribed(t, to, b) == 2 })
		equal(t, "subscriptions that are left", subscribed(t, from, b), 0)
		eventually(t, "both trust it", time.Minute, func() bool { return a.cache.Stats().Trusted && b.cache.Stats().Trusted })
		from = to
	}
	if n := stop(); n == 0 {
		t.Fatal("nothing was written meanwhile")
	}
	cached(t, b)
	seesWithin(t, a, b, 5)
}

// The channel's slot is moved away and back while its subscribers stay: they hear
// pings again, and have not heard what the other node took.
func TestC06ClusterChannelMoveThatIsCalledOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{})
	// No ping falls between: b's are seconds apart, and a has none.
	a, b := c.open(t, Config{Lease: RevalidateAlways}), c.open(t, Config{Lease: time.Minute})
	ready(t, a, b)
	a.price(t, 1) // it has the catalogue, and does not empty everything with each write
	cached(t, b)
	slot, shard := slotOf(b.cache.channel.name)
	from, _, err := c.Shard(c.ctx, shard)
	must(t, err)
	to, _, err := c.Shard(c.ctx, (shard+1)%3)
	must(t, err)
	do := func(node *testbed.Redis, args ...any) any {
		t.Helper()
		reply, err := node.Do(c.ctx, args...)
		must(t, err)
		return reply
	}
	fromID, toID := do(from, "CLUSTER", "MYID"), do(to, "CLUSTER", "MYID")
	counter := b.cache.store.(*redisStore).shard.counter
	move := func(from, to *testbed.Redis) {
		t.Helper()
		do(from, "MIGRATE", "127.0.0.1", fmt.Sprint(to.Port()), counter, 0, 5000)
	}
	do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	move(from, to)
	a.setPrice(t, 1, 77)
	equal(t, "b has not heard", b.price(t, 1), 10)
	do(from, "CLUSTER", "SETSLOT", slot, "STABLE")
	move(to, from)
	do(to, "CLUSTER", "SETSLOT", slot, "STABLE")
	equal(t, "b's subscription was not ended", subscribed(t, from, b) > 0, true)
	a.setPrice(t, 2, 78) // the next message shows that one is missing
	eventually(t, "b knows that it missed one", 20*time.Second, func() bool { return b.price(t, 1) == 77 })
}

// The channel's master is replaced in agreement, and then dies.
func TestC06ClusterChannelFailsOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{})
	log := &lines{}
	a, b := c.open(t, Config{}), c.open(t, Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
	ready(t, a, b)
	cached(t, a, b)
	_, shard := slotOf(b.cache.channel.name)
	stop := background(t, a, b)
	must(t, c.Failover(c.ctx, shard))
	master, replica, err := c.Shard(c.ctx, shard)
	must(t, err)
	eventually(t, "both are at the new master", time.Minute, func() bool { return subscribed(t, master, b) == 2 })
	equal(t, "subscriptions that are left", subscribed(t, replica, b), 0)
	cached(t, b)
	eventually(t, "the replica is in step", time.Minute, func() bool { return c.WaitReady(c.ctx) == nil })

	must(t, master.Kill())
	eventually(t, "the replica is master, and both are there", time.Minute, func() bool { return subscribed(t, replica, b) == 2 })
	must(t, c.WaitReady(c.ctx))
	eventually(t, "it is trusted", time.Minute, func() bool { return a.cache.Stats().Trusted && b.cache.Stats().Trusted })
	if n := stop(); n == 0 {
		t.Fatal("nothing was written meanwhile")
	}
	equal(t, "what was said is taken for known", log.count("masters of the Redis Cluster were replaced"), 0)
	cached(t, b)
	seesWithin(t, a, b, 5)
}

// apart returns a name under which a table's tag is in another shard than the channel
// and the roster, and that shard.
func (c *cluster) apart(t *testing.T, table string) (name string, shard int) {
	t.Helper()
	for i := range 1000 {
		name = fmt.Sprintf("apart%d", i)
		prefix := "infra:" + name + ":cache:"
		_, channel := slotOf(prefix + "{" + name + "}:")
		_, roster := slotOf(prefix + "tables")
		if _, shard = slotOf(prefix + "t:" + table); shard != channel && shard != roster {
			return name, shard
		}
	}
	t.Fatal("none is apart")
	return "", 0
}

// A shard of tags is promoted without the last writes: with the stamps of before.
func TestC06ClusterFailoverThatLosesTheLastWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{})
	probe := c.open(t, Config{Name: "probe"})
	table := probe.table(t, "products")
	name, shard := c.apart(t, table)
	a, b := c.open(t, Config{Name: name}), c.open(t, Config{Name: name})
	ready(t, a, b)
	named(t, a)
	cached(t, a, b)
	// A list depends on the table's tag, a look-up by key on the row's, which may be in
	// another shard. Who asks at each hit knows no stamp but that of Redis.
	asks := c.open(t, Config{Name: name, Lease: RevalidateAlways})
	ready(t, asks)
	sum := func() string { return asks.text(t, "SELECT sum(price)::text FROM products") }
	eventually(t, "the list is kept", time.Minute, func() bool {
		asked := asks.seen.queries.Load()
		equal(t, "the list", sum(), "50500")
		return asks.seen.queries.Load() == asked
	})
	master, replica, err := c.Shard(c.ctx, shard)
	must(t, err)
	stamp := func(node *testbed.Redis) string {
		o := redis.NewClient(&redis.Options{Addr: node.Addr(), PoolSize: 1})
		defer o.Close()
		must(t, o.Do(c.ctx, "READONLY").Err())
		s, _ := o.HGet(c.ctx, "infra:"+name+":cache:t:"+table, "s").Result()
		return s
	}
	eventually(t, "the replica has the stamp", time.Minute, func() bool { return stamp(replica) == stamp(master) && stamp(master) != "" })
	_, err = master.Do(c.ctx, "ACL", "SETUSER", "default", "-psync", "-sync")
	must(t, err)
	_, err = master.Do(c.ctx, "CLIENT", "KILL", "TYPE", "replica")
	must(t, err)
	old := stamp(master)
	seesWithin(t, a, b, 77)
	equal(t, "the replica has the old stamp", stamp(replica), old)
	must(t, master.Kill())
	_, err = replica.Do(c.ctx, "CLUSTER", "FAILOVER", "TAKEOVER")
	must(t, err)
	must(t, c.WaitReady(c.ctx))
	allowed := time.Now().Add(a.cache.cfg.Lease + time.Second)
	hits := a.cache.Stats().L1Hits + b.cache.Stats().L1Hits
	eventually(t, "memory serves again", time.Minute, func() bool {
		late := time.Now().After(allowed)
		for _, db := range []*instance{a, b} {
			if p := db.price(t, 1); p != 77 && late {
				t.Fatalf("price %d longer than a lease and a second after the failover", p)
			}
		}
		if s := sum(); s != "50567" && late {
			t.Fatalf("a sum of %s longer than a lease and a second after the failover", s)
		}
		return late && a.cache.Stats().L1Hits+b.cache.Stats().L1Hits > hits+20
	})
}

// A shard of tags is down, and the channel's is not: a write cannot be stamped, and is
// told of nevertheless.
func TestC06ClusterShardDownAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{Settings: map[string]string{"cluster-require-full-coverage": "no"}})
	probe := c.open(t, Config{Name: "probe"})
	name, shard := c.apart(t, probe.table(t, "products"))
	a, b := c.open(t, Config{Name: name, Timeout: 200 * time.Millisecond}), c.open(t, Config{Name: name, Lease: time.Minute})
	ready(t, a, b)
	a.price(t, 1) // it has the catalogue now
	cached(t, b)
	master, replica, err := c.Shard(c.ctx, shard)
	must(t, err)
	must(t, replica.Kill())
	must(t, master.Kill())
	equal(t, "b's memory", b.price(t, 1), 10)
	a.setPrice(t, 1, 77)
	wrote := time.Now()
	eventually(t, "b hears of it", 20*time.Second, func() bool { return b.price(t, 1) == 77 })
	t.Logf("after %v", time.Since(wrote))
	eventually(t, "it has to be stamped still", 20*time.Second, func() bool { return a.cache.Stats().Quarantined > 0 })
}

// A master that has become a replica answers nobody who takes it for the master, also
// on a connection that reads from replicas.
func TestC06ClusterStampsAreReadFromMasters(t *testing.T) {
	t.Parallel()
	c := newCluster(t, testbed.RedisClusterConfig{})
	_, replica, err := c.Shard(c.ctx, 0)
	must(t, err)
	var key string
	for i := 0; ; i++ {
		key = fmt.Sprintf("infra:x:cache:t:%d", i)
		if _, shard := slotOf(key); shard == 0 {
			break
		}
	}
	o := redis.NewClient(&redis.Options{Addr: replica.Addr(), PoolSize: 1, MaxRetries: -1})
	defer o.Close()
	must(t, o.Do(c.ctx, "READONLY").Err())
	must(t, o.HGetAll(c.ctx, key).Err()) // it does answer others
	fresh := mint()
	reading := newRedisStore(c.client(t, redis.ClusterOptions{ReadOnly: true}))
	for name, err := range map[string]error{
		"read": reading.scripts.read.Eval(c.ctx, o, []string{key}, fresh[:], 1000).Err(),
		"mark": reading.scripts.mark.Eval(c.ctx, o, []string{key}, "w", 1000, 1000).Err(),
		"bump": reading.scripts.bump.Eval(c.ctx, o, []string{key}, "w", fresh[:], 1000).Err(),
		"get":  getScript.Eval(c.ctx, o, []string{key}).Err(),
		"say":  sayScript.Eval(c.ctx, o, []string{key}, "c", "m", "b").Err(),
		"ping": pingScript.Eval(c.ctx, o, []string{key}, "c", "m", "b").Err(),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "MOVED ") {
			t.Errorf("%s, of a replica: %v, want MOVED", name, err)
		}
	}
}
