package sqltext

import (
	"fmt"
	"strings"
	"testing"
)

// of200 is a statement of 200 bytes as GORM builds them.
const of200 = `SELECT "users"."id","users"."name","users"."age" FROM "users" LEFT JOIN "orders" ON "orders"."user_id" = "users"."id" WHERE "users"."age" > $1 AND "users"."deleted_at" IS NULL ORDER BY "id" LIMIT $2`

func BenchmarkAnalyzeKnown(b *testing.B) {
	text := strings.Clone(of200)
	Analyze(of200)
	b.ReportAllocs()
	for b.Loop() {
		if Analyze(text).Operation != Select {
			b.Fatal("not a SELECT")
		}
	}
}

func BenchmarkAnalyzeKnownParallel(b *testing.B) {
	Analyze(of200)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Analyze(of200)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, text := range map[string]string{
		"200B":    of200,
		"insert":  `INSERT INTO "users" ("created_at","updated_at","deleted_at","name","age","company_id") VALUES ($1,$2,$3,$4,$5,$6) RETURNING "id"`,
		"by-key":  `SELECT * FROM "users" WHERE "users"."id" = $1 ORDER BY "users"."id" LIMIT $2`,
		"in-2KB":  `SELECT * FROM "users" WHERE "users"."id" IN (` + strings.Repeat("$1,", 650) + "$1)",
		"sql-2KB": strings.TrimSuffix(strings.Repeat(of200+" UNION ALL ", 10), " UNION ALL "),
		"sql-1MB": strings.TrimSuffix(strings.Repeat(of200+" UNION ALL ", 5000), " UNION ALL "),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if Parse(text).Operation == Unknown {
					b.Fatal("unknown")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(text)), "ns/byte")
		})
	}
}

// BenchmarkAnalyzeNew is a text that was never seen: Parse and what the memo costs.
func BenchmarkAnalyzeNew(b *testing.B) {
	texts := make([]string, 1<<16)
	for i := range texts {
		texts[i] = fmt.Sprintf("%s OFFSET %d", of200, i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Analyze(texts[i%len(texts)])
	}
}
