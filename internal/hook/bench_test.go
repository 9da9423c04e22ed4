package hook_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// everyStage takes part in the stages of a read at no cost of its own.
type everyStage struct{ primary *hook.Node }

func (everyStage) Gate(context.Context, *hook.Record) error      { return nil }
func (everyStage) Charge(context.Context, *hook.Record) error    { return nil }
func (everyStage) Observe(context.Context, *hook.Record)         {}
func (everyStage) Begin(*hook.Txn)                               {}
func (everyStage) Ended(*hook.Txn, hook.TxnOutcome)              {}
func (everyStage) BeforeCommit(context.Context, *hook.Txn) error { return nil }
func (e everyStage) Route(context.Context, *hook.Record) (*hook.Node, error) {
	return e.primary, nil
}
func (everyStage) Retry(context.Context, *hook.Record, error) *hook.Node { return nil }
func (everyStage) Done(*hook.Record, *hook.Node, error, time.Duration)   {}
func (e everyStage) RouteTx(context.Context, *sql.TxOptions, hook.Hint) (*hook.Node, error) {
	return e.primary, nil
}

// BenchmarkWrap measures GORM over a driver that answers at once: bare, with
// the layer alone, and with a part in every stage.
func BenchmarkWrap(b *testing.B) {
	statements := []struct {
		name string
		run  func(db *gorm.DB) error
	}{
		{"Find", func(db *gorm.DB) error { var c []Company; return db.Find(&c).Error }},
		{"Scan", func(db *gorm.DB) error { var c Company; return db.Raw("SELECT id, name FROM companies").Scan(&c).Error }},
		{"Exec", func(db *gorm.DB) error { return db.Exec("UPDATE companies SET name = ?", "x").Error }},
		{"Create", func(db *gorm.DB) error { return db.Create(&Company{Name: "x"}).Error }},
	}
	for _, s := range statements {
		for _, v := range []struct {
			name string
			use  func(db *gorm.DB)
		}{
			{"bare", func(*gorm.DB) {}},
			{"attached", func(db *gorm.DB) { attach(b, db) }},
			{"every-stage", func(db *gorm.DB) {
				hub := attach(b, db)
				remove, err := hub.Register(&everyStage{hub.Primary()})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(remove)
			}},
		} {
			b.Run(s.name+"/"+v.name, func(b *testing.B) {
				db := openNull(b, oneCompany)
				v.use(db)
				b.ReportAllocs()
				for b.Loop() {
					if err := s.run(db); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
