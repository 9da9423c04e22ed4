package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/cachehook"
)

// missCost is what a miss takes beside the bare query, with memory alone, and
// what it asks of Redis.
func missCost(ctx context.Context, open func(...gorm.Plugin) (*gorm.DB, error), bare *gorm.DB, server string) (_ []row, err error) {
	memory := cachehook.New(cacheConfig("misses", nil))
	l1, err := open(memory)
	if err != nil {
		return nil, err
	}
	defer closeDB(l1)
	defer func() { err = errors.Join(err, memory.Close()) }()
	before := memory.Stats().L1Hits
	rows := []row{atMost("miss, memory alone, one row", "Postgres", measure(miss(ctx, l1), miss(ctx, bare)), 1.05)}
	if memory.Stats().L1Hits != before {
		return nil, errors.New("what should have been misses were hits")
	}

	asked := &questions{}
	rdb := redis.NewClient(&redis.Options{Addr: server, Dialer: asked.dial})
	defer rdb.Close()
	shared := cachehook.New(cacheConfig("misses", rdb))
	l2, err := open(shared)
	if err != nil {
		return nil, err
	}
	defer closeDB(l2)
	defer func() { err = errors.Join(err, shared.Close()) }()
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := shared.Ready(waiting); err != nil {
		return nil, err
	}
	missed := miss(ctx, l2)
	missed(20) // until the tags have stamps
	time.Sleep(100 * time.Millisecond)
	const n = 500
	from, misses := asked.n.Load(), shared.Stats().Misses
	missed(n)
	if shared.Stats().Misses-misses != n {
		return nil, errors.New("what should have been misses were none")
	}
	trips := float64(asked.n.Load()-from) / n
	return append(rows, counted("round trips to Redis that a miss waits for", "", "round trips", interval{trips, trips, trips}, 1.01, false)), nil
}

var missed atomic.Int64

// miss reads one row by a query that nobody has asked before.
func miss(ctx context.Context, db *gorm.DB) func(int) {
	db = db.WithContext(ctx)
	return func(n int) {
		for range n {
			var it item
			must(db.Where("stock > ?", -missed.Add(1)).First(&it, 7).Error)
		}
	}
}

// questions counts the writes to Redis that ask for entries or tags; a pipeline is
// one. The SET of a fill, which nobody waits for, is none.
type questions struct{ n atomic.Int64 }

func (q *questions) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &countedConn{conn, q}, err
}

type countedConn struct {
	net.Conn
	asked *questions
}

func (c *countedConn) Write(b []byte) (int, error) {
	text := string(b)
	if (strings.Contains(text, ":cache:e:") || strings.Contains(text, ":cache:t:")) && !strings.Contains(strings.ToLower(text[:min(len(text), 20)]), "set\r\n") {
		c.asked.n.Add(1)
	}
	return c.Conn.Write(b)
}

// weight is what an entry holds on the heap, beyond 1.3 times what the models
// hold that it was read into.
func weight(ctx context.Context, open func(...gorm.Plugin) (*gorm.DB, error)) (rows []row, err error) {
	for _, c := range []struct {
		name    string
		entries int
		read    func(db *gorm.DB, i int) (payload int)
	}{
		{"one row", 4000, func(db *gorm.DB, i int) int {
			var it item
			must(db.Where("stock > ?", -1-i).First(&it, 7).Error)
			return int(unsafe.Sizeof(it)) + len(it.Name)
		}},
		{"100 rows", 300, func(db *gorm.DB, i int) (payload int) {
			var items []item
			must(db.Where("stock > ?", -1-i).Find(&items).Error)
			for i := range items {
				payload += int(unsafe.Sizeof(items[i])) + len(items[i].Name)
			}
			return payload
		}},
	} {
		cfg := cacheConfig("weight", nil)
		cfg.L1 = cachehook.L1{MaxEntries: 10_000, MaxBytes: 1 << 30}
		plugin := cachehook.New(cfg)
		db, err := open(plugin)
		if err != nil {
			return nil, err
		}
		db = db.WithContext(ctx)
		c.read(db, c.entries)
		empty := inUse()
		payload := 0
		for range 2 { // the second time leaves the models in the place of the rows
			payload = 0
			for i := range c.entries {
				payload += c.read(db, i)
			}
		}
		held := (inUse() - empty) / float64(c.entries)
		each := float64(payload) / float64(c.entries)
		beyond := held - 1.3*each
		r := counted("memory of an entry, "+c.name, fmt.Sprintf("a payload of %.0f B, of which 1.3 times", each), "B beyond", interval{beyond, beyond, beyond}, 400, false)
		entries := plugin.Stats().Entries
		closeDB(db)
		if err := plugin.Close(); err != nil {
			return nil, err
		}
		if entries != int64(c.entries)+1 {
			return nil, fmt.Errorf("%d entries are in memory, and %d were read", entries, c.entries+1)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func inUse() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
