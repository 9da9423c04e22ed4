package metrics

import (
	"fmt"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/sqltext"
)

// record is a statement as the hook layer hands it over.
func record(node, text string) *hook.Record {
	return &hook.Record{
		Chain: hook.Query, Text: sqltext.Analyze(text), Node: &hook.Node{Name: node}, Duration: 3 * time.Millisecond, Rows: 1,
	}
}

func TestKnownStatementsDoNotAllocate(t *testing.T) {
	rec := recorderFor(Config{MaxTables: 1})
	for i := range maxNodes {
		rec.Observe(t.Context(), record(fmt.Sprintf("r%d", i), "SELECT * FROM orders"))
	}
	tests := map[string]*hook.Record{
		"known":             record("r1", "SELECT * FROM orders WHERE id = $1"),
		"beyond the tables": record("r1", "SELECT * FROM customers JOIN orders USING (id)"),
		"beyond the nodes":  record("one more", "SELECT * FROM orders"),
		"of no table":       record("r1", "SELECT 1"),
		"refused":           {Outcome: hook.Refused},
	}
	for name, r := range tests {
		f := func() { rec.Observe(t.Context(), r) }
		f()
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	request := func() { rec.request("GET /orders/{id}", time.Millisecond, 200) }
	request()
	if n := testing.AllocsPerRun(100, request); n != 0 {
		t.Errorf("request: %v allocations", n)
	}
}

// BenchmarkObserve is the cost of one statement.
func BenchmarkObserve(b *testing.B) {
	b.Run("statement", func(b *testing.B) {
		rec := recorderFor(Config{})
		r := record("primary", "SELECT * FROM orders WHERE id = $1")
		ctx := b.Context()
		b.ReportAllocs()
		for b.Loop() {
			rec.Observe(ctx, r)
		}
	})
	b.Run("statement among many", func(b *testing.B) {
		rec := recorderFor(Config{})
		var all []*hook.Record
		for i := range 100 {
			for _, node := range []string{"primary", "replica-1", "replica-2"} {
				all = append(all, record(node, fmt.Sprintf("SELECT * FROM table_number_%d", i)))
			}
		}
		ctx := b.Context()
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			rec.Observe(ctx, all[i%len(all)])
			i++
		}
	})
	b.Run("statement parallel", func(b *testing.B) {
		rec := recorderFor(Config{})
		ctx := b.Context()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			r := record("primary", "SELECT * FROM orders WHERE id = $1")
			for pb.Next() {
				rec.Observe(ctx, r)
			}
		})
	})
	b.Run("request", func(b *testing.B) {
		rec := recorderFor(Config{})
		b.ReportAllocs()
		for b.Loop() {
			rec.request("GET /orders/{id}", time.Millisecond, 200)
		}
	})
}
