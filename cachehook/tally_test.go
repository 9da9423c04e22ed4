package cachehook

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

func TestStatsTellPerTableWhereAnswersCameFromAndWhyNot(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	dsn := database(t)
	exec(t, dsn, `CREATE TABLE others (id bigint PRIMARY KEY)`, `INSERT INTO others VALUES (1)`)
	cfg := Config{Redis: rdb, Name: name, Tables: map[string]Rule{"products": {TTL: time.Minute}, "others": {NotFoundTTL: -1}}, MaxResult: 1000, Timeout: 10 * time.Second}
	a, b := open(t, dsn, cfg), open(t, dsn, cfg)
	ready(t, a, b)
	by := pass(a.cache)
	table := func(i *instance, name string) TableStats { return i.cache.Stats().Tables[name] }

	a.price(t, 1) // cold
	a.price(t, 1) // from memory
	eventually(t, "the fill", 30*time.Second, func() bool { return len(keysOf(t, rdb, "infra:"+name+":cache:e:*")) == 1 })
	b.price(t, 1) // from Redis
	equal(t, "b's hits in Redis", table(b, "products").L2Hits, 1)
	equal(t, "a's hits in memory", table(a, "products").L1Hits, 1)
	equal(t, "a's cold misses", table(a, "products").Misses["cold"], 1)
	equal(t, "a's fills", table(a, "products").Fills, 1)

	a.setPrice(t, 1, 5)
	a.price(t, 1)
	equal(t, "misses for a write", table(a, "products").Misses["invalidated"], 1)
	equal(t, "invalidations", table(a, "products").Invalidations, 1)

	a.price(t, 2)
	eventually(t, "the fills", 30*time.Second, func() bool { return len(keysOf(t, rdb, "infra:"+name+":cache:e:*")) == 2 })
	by(2 * time.Minute) // what is on its way to Redis after that has no time left, and is not sent
	must(t, rdb.Del(context.Background(), keysOf(t, rdb, "infra:"+name+":cache:e:*")...).Err())
	a.price(t, 2)
	equal(t, "misses for the time", table(a, "products").Misses["expired"], 1)

	must(t, a.Find(&[]product{}).Error)
	equal(t, "too large to be kept", table(a, "products").Refused["size"], 1)
	var n []int64
	must(t, a.Table("others").Where("id = 7").Pluck("id", &n).Error)
	equal(t, "found nothing, which is not kept", table(a, "others").Refused["not_found"], 1)
	must(t, a.cache.Set(context.Background(), "k", []byte("v"), 0))
	_, found := a.cache.Get(context.Background(), "k")
	equal(t, "by hand", found, true)
	equal(t, "hits by hand", table(a, "").L1Hits, 1)

	s := a.cache.Stats()
	var hits, misses uint64
	var bytes, entries int64
	for _, one := range s.Tables {
		hits += one.L1Hits
		for _, m := range one.Misses {
			misses += m
		}
		bytes, entries = bytes+one.Bytes, entries+one.Entries
	}
	equal(t, "hits in all", s.L1Hits, hits)
	equal(t, "misses in all", s.Misses, misses)
	equal(t, "bytes in all", s.Bytes, bytes)
	equal(t, "entries in all", s.Entries, entries)
	if table(a, "products").Bytes <= 0 || s.L1Hits != 2 || s.Misses != 6 {
		t.Errorf("%+v", s)
	}
	must(t, a.cache.Close())
	equal(t, "bytes of the table after Close", table(a, "products").Bytes, 0)
}

// A result that is overtaken, and one whose session changed, are counted.
func TestStatsTellOfFillsThatWereOvertaken(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	db.price(t, 2)
	parked, release := db.seen.park()
	defer release()
	old := make(chan int64, 1)
	go func() { old <- db.price(t, 1) }()
	<-parked
	db.setPrice(t, 1, 77)
	release()
	<-old
	equal(t, "overtaken", db.cache.Stats().Tables["products"].Refused["overtaken"], 1)
}

// However many tables there are, the labels are few.
func TestLabelsOfTablesAreBounded(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	for i := range 3 * maxTallies {
		db.cache.tallies.of(db.cache.mirror.cell(fmt.Sprintf("table:t%d", i), true)).fills.Add(1)
		db.cache.tallies.of(db.cache.mirror.cell(fmt.Sprintf("tag%d", i), false)).fills.Add(1)
	}
	s := db.cache.Stats()
	equal(t, "tables", len(s.Tables), maxTallies+1)
	equal(t, "fills", s.Fills, 6*maxTallies)
	// A statement that is not cached has no label either.
	_ = db.Exec("UPDATE nobody_knows SET a = 1").Error
	if _, there := db.cache.Stats().Tables["nobody_knows"]; there {
		t.Error("a table that is not known has a label")
	}
}

func TestMeterTellsTheNumbersByTableAndReason(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	db.price(t, 1)
	db.price(t, 1)
	db.setPrice(t, 1, 5)
	db.price(t, 1)
	got := make(map[string]float64)
	part{db.cache}.Meter(func(m *hook.Metric, v float64, labels ...string) {
		equal(t, m.Name+": labels", len(labels), len(m.Labels))
		key := m.Name + "{" + strings.Join(labels, ",") + "}"
		if _, twice := got[key]; twice {
			t.Errorf("%s is told twice", key)
		}
		got[key] = v
	})
	for key, want := range map[string]float64{
		"cache_hits_total{products,l1}": 1, "cache_hits_total{products,l2}": 0,
		"cache_misses_total{products,cold}": 1, "cache_misses_total{products,invalidated}": 1,
		"cache_fills_total{products}": 2, "cache_table_invalidations_total{products}": 1,
		"cache_corrupt_total{checksum}": 0, "cache_entries{}": 1,
	} {
		if v, told := got[key]; !told || v != want {
			t.Errorf("%s: got %v, want %v", key, v, want)
		}
	}
	if got["cache_table_bytes{products}"] != got["cache_bytes{}"] || got["cache_bytes{}"] <= 0 {
		t.Errorf("bytes: %v of %v", got["cache_table_bytes{products}"], got["cache_bytes{}"])
	}
}

// resealed is a payload with a right checksum over changed bytes.
func resealed(data []byte, change func(body []byte) []byte) []byte {
	body := change(append([]byte(nil), data[headerSize:]...))
	return seal(body)
}

func TestC17UnreadablePayloadsAreMissesCountedByReason(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	ctx := context.Background()
	db := open(t, database(t), Config{Redis: rdb, Name: name, L1: L1{MaxEntries: -1}})
	ready(t, db)
	read := func(tx *gorm.DB, id int64) {
		t.Helper()
		var p product
		must(t, tx.First(&p, id).Error)
		equal(t, "price", p.Price, id*10)
	}
	stored := func(keys int) {
		t.Helper()
		eventually(t, "the fill", 30*time.Second, func() bool { return len(keysOf(t, rdb, "infra:"+name+":cache:e:*")) == keys })
	}
	read(db.DB, 1)
	stored(1)
	key := keysOf(t, rdb, "infra:"+name+":cache:e:*")[0]
	good, err := rdb.Get(ctx, key).Bytes()
	must(t, err)
	newer := append([]byte(nil), good...)
	newer[len(magic)-1]++
	binary.LittleEndian.PutUint64(newer[len(magic):], xxhash.Sum64(newer[headerSize:]))
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-1] ^= 1
	for _, test := range []struct {
		reason  string
		payload []byte
	}{
		{"foreign", []byte("hello, this is somebody else's value")},
		{"foreign", []byte("x")},
		{"version", newer},
		{"checksum", good[:len(good)-3]},
		{"checksum", good[:headerSize]},
		{"checksum", flipped},
		{"structure", resealed(good, func(b []byte) []byte { return b[:len(b)-1] })},
		{"structure", resealed(good, func(b []byte) []byte { b[0] |= compressedFlag; return b })},
		{"mismatch", resealed(good, func(b []byte) []byte { b[3] = '+'; return b })}, // the first tag's name
	} {
		before := db.cache.Stats()
		queries := db.seen.queries.Load()
		must(t, rdb.Set(ctx, key, test.payload, time.Minute).Err())
		read(db.DB, 1)
		after := db.cache.Stats()
		equal(t, test.reason+": queries", db.seen.queries.Load()-queries, 1)
		equal(t, test.reason+": counted", after.CorruptBy[test.reason]-before.CorruptBy[test.reason], 1)
		equal(t, test.reason+": in all", after.Corrupt-before.Corrupt, 1)
		equal(t, test.reason+": a miss", after.Tables["products"].Misses["corrupt"]-before.Tables["products"].Misses["corrupt"], 1)
		eventually(t, "it is mended", 30*time.Second, func() bool {
			now, err := rdb.Get(ctx, key).Bytes()
			if err == nil {
				_, err = decode(now)
			}
			return err == nil && string(now) != string(test.payload)
		})
	}
}
