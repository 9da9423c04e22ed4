package cachehook

import (
	"context"
	"testing"

	"gorm.io/gorm"
)

func benchDB(b *testing.B, cfg Config) *instance {
	b.Helper()
	db := open(b, database(b), cfg)
	ready(b, db)
	return db
}

func BenchmarkFirst(b *testing.B) {
	b.Run("dry-run", func(b *testing.B) {
		db := benchDB(b, Config{Disabled: true}).Session(&gorm.Session{DryRun: true})
		b.ReportAllocs()
		for b.Loop() {
			var p product
			db.First(&p, 1)
		}
	})
	b.Run("database", func(b *testing.B) {
		db := benchDB(b, Config{Disabled: true})
		b.ReportAllocs()
		for b.Loop() {
			db.price(b, 1)
		}
	})
	b.Run("L1", func(b *testing.B) {
		db := benchDB(b, Config{})
		db.price(b, 1)
		b.ReportAllocs()
		for b.Loop() {
			db.price(b, 1)
		}
		hitsOnly(b, db)
	})
	b.Run("L1-leased", func(b *testing.B) {
		rdb, _ := client(b)
		db := benchDB(b, Config{Redis: rdb, Name: namespace(b)})
		db.price(b, 1)
		b.ReportAllocs()
		for b.Loop() {
			db.price(b, 1)
		}
		hitsOnly(b, db)
	})
	b.Run("L1-revalidated", func(b *testing.B) {
		rdb, _ := client(b)
		db := benchDB(b, Config{Redis: rdb, Name: namespace(b), Lease: RevalidateAlways})
		db.price(b, 1)
		b.ReportAllocs()
		for b.Loop() {
			db.price(b, 1)
		}
	})
	b.Run("L2", func(b *testing.B) {
		rdb, _ := client(b)
		db := benchDB(b, Config{Redis: rdb, Name: namespace(b), L1: L1{MaxEntries: -1}})
		db.price(b, 1)
		b.ReportAllocs()
		for b.Loop() {
			db.price(b, 1)
		}
	})
}

func BenchmarkFind100(b *testing.B) {
	read := func(b *testing.B, db *gorm.DB) {
		var ps []product
		if err := db.Find(&ps).Error; err != nil || len(ps) != 100 && !db.DryRun {
			b.Fatal(err, len(ps))
		}
	}
	b.Run("dry-run", func(b *testing.B) {
		db := benchDB(b, Config{Disabled: true}).Session(&gorm.Session{DryRun: true})
		b.ReportAllocs()
		for b.Loop() {
			read(b, db)
		}
	})
	b.Run("database", func(b *testing.B) {
		db := benchDB(b, Config{Disabled: true})
		b.ReportAllocs()
		for b.Loop() {
			read(b, db.DB)
		}
	})
	b.Run("L1", func(b *testing.B) {
		db := benchDB(b, Config{})
		read(b, db.DB)
		b.ReportAllocs()
		for b.Loop() {
			read(b, db.DB)
		}
		hitsOnly(b, db)
	})
	b.Run("L2", func(b *testing.B) {
		rdb, _ := client(b)
		db := benchDB(b, Config{Redis: rdb, Name: namespace(b), L1: L1{MaxEntries: -1}})
		read(b, db.DB)
		b.ReportAllocs()
		for b.Loop() {
			read(b, db.DB)
		}
	})
}

func BenchmarkFetch(b *testing.B) {
	db := benchDB(b, Config{})
	ctx := context.Background()
	value := make([]byte, 200)
	tags := []string{"tag"}
	load := func(context.Context) ([]byte, error) { return value, nil }
	b.ReportAllocs()
	for b.Loop() {
		if v, err := Fetch(ctx, db.cache, "key", 0, tags, load); err != nil || len(v) != 200 {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, mode := range []string{"disabled", "memory", "redis"} {
		b.Run(mode, func(b *testing.B) {
			cfg := Config{Disabled: mode == "disabled"}
			if mode == "redis" {
				cfg.Redis, _ = client(b)
				cfg.Name = namespace(b)
			}
			db := benchDB(b, cfg)
			b.ReportAllocs()
			for b.Loop() {
				db.setPrice(b, 1, 5)
			}
		})
	}
}

// hitsOnly fails a benchmark that measured something else.
func hitsOnly(b *testing.B, db *instance) {
	b.Helper()
	if n := db.seen.queries.Load(); n != 1 && n > int64(b.N)/100+2 {
		b.Fatalf("%d queries in %d reads: %+v", n, b.N, db.cache.Stats())
	}
}

func BenchmarkMiss(b *testing.B) {
	for _, mode := range []string{"database", "L1"} {
		b.Run(mode, func(b *testing.B) {
			db := benchDB(b, Config{Disabled: mode == "database"})
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				var p product
				if err := db.Where("price > ?", -n).First(&p, 1).Error; err != nil {
					b.Fatal(err)
				}
			}
			if hits := db.cache.Stats().L1Hits; hits > 0 {
				b.Fatalf("%d hits", hits)
			}
		})
	}
}
