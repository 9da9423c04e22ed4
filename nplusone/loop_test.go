package nplusone_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorminfra/infra/nplusone"
)

// kindsOf lists the findings as "kind count/distinct code", in order of count.
func kindsOf(r nplusone.Report) []string {
	out := []string{}
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s %d/%d %s", f.Kind, f.Count, f.Distinct, f.Fixes[0].Code))
	}
	return out
}

// byID is a helper of several callers.
func byID(db *gorm.DB, id int) {
	var a Author
	db.Take(&a, id)
}

func times(n int, do func(i int)) {
	for i := range n {
		do(i + 1)
	}
}

func TestWhatALoopIs(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true, Threshold: 5})
	tests := []struct {
		name string
		run  func(db *gorm.DB)
		want []string // in any order
	}{
		{"one below the threshold", func(db *gorm.DB) { times(4, func(i int) { byID(db, i) }) }, nil},
		{"the threshold", func(db *gorm.DB) { times(5, func(i int) { byID(db, i) }) }, []string{`n_plus_one 5/5 db.Where("id IN ?", keys).Find(&authors)`}},
		{"two of the parameters differ", func(db *gorm.DB) { times(6, func(i int) { byID(db, i%2) }) }, []string{`n_plus_one 6/2 db.Where("id IN ?", keys).Find(&authors)`}},
		{"the same parameters", func(db *gorm.DB) { times(5, func(int) { byID(db, 1) }) }, []string{`duplicate_query 5/1 `}},
		{"the same parameters, one below", func(db *gorm.DB) { times(4, func(int) { byID(db, 1) }) }, nil},
		{"the same parameters, after writes of the table", func(db *gorm.DB) {
			times(6, func(i int) {
				byID(db, 1)
				db.Exec("UPDATE authors SET name = 'same' WHERE id = 1")
			})
		}, nil},
		{"the same parameters, after writes of another table", func(db *gorm.DB) {
			times(6, func(i int) {
				byID(db, 1)
				db.Exec("UPDATE posts SET views = 1 WHERE id = 1")
			})
		}, []string{`duplicate_query 6/1 `}},
		{"the same parameters, with a lock", func(db *gorm.DB) {
			_ = db.Transaction(func(tx *gorm.DB) error {
				times(6, func(int) { byID(tx.Clauses(clause.Locking{Strength: "UPDATE"}), 1) })
				return nil
			})
		}, nil},
		{"two sites", func(db *gorm.DB) {
			times(4, func(i int) { byID(db, i) })
			times(4, func(i int) { db.Take(&Author{}, i) })
		}, nil},
		{"one helper called from two sites", func(db *gorm.DB) {
			for i := range 4 {
				byID(db, i)
			}
			for i := range 4 {
				byID(db, i)
			}
		}, nil},
		{"one helper, one site of two is a loop", func(db *gorm.DB) {
			for i := range 3 {
				byID(db, i)
			}
			for i := range 6 {
				byID(db, i)
			}
		}, []string{`n_plus_one 6/6 db.Where("id IN ?", keys).Find(&authors)`}},
		{"goroutines", func(db *gorm.DB) {
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() { db.Take(&Post{}, i) })
			}
			wg.Wait()
		}, []string{`n_plus_one 8/8 db.Where("id IN ?", keys).Find(&posts)`}},
		{"interleaved shapes", func(db *gorm.DB) {
			for i := range 5 {
				db.Take(&Post{}, i)
				db.Take(&Badge{}, i)
			}
		}, []string{`n_plus_one 5/5 db.Where("id IN ?", keys).Find(&posts)`, `n_plus_one 5/5 db.Where("id IN ?", keys).Find(&badges)`}},
		{"raw SQL", func(db *gorm.DB) {
			for i := range 5 {
				var n string
				_ = db.Raw("SELECT name FROM authors WHERE id = ?", i).Row().Scan(&n)
			}
		}, []string{`n_plus_one 5/5 db.Where("id IN ?", keys).Find(&authors)`}},
		{"raw SQL with values in the text", func(db *gorm.DB) {
			for i := range 5 {
				var n string
				db.Raw(fmt.Sprintf("SELECT name FROM authors WHERE id = %d", i)).Scan(&n)
			}
		}, []string{`n_plus_one 5/5 `}},
		{"a loop over Rows", func(db *gorm.DB) {
			rows, err := db.Model(&Post{}).Rows()
			if err != nil {
				panic(err)
			}
			defer rows.Close()
			for rows.Next() {
				var p Post
				_ = db.ScanRows(rows, &p)
				db.Where("post_id = ?", p.ID).Find(&p.Comments)
			}
		}, []string{`n_plus_one 6/6 db.Preload("Comments")`}},
		{"a loop that opens Rows", func(db *gorm.DB) {
			for i := range 5 {
				rows, err := db.Model(&Comment{}).Where("post_id = ?", i).Rows()
				if err != nil {
					panic(err)
				}
				rows.Close()
			}
		}, []string{`n_plus_one 5/5 db.Where("post_id IN ?", keys).Find(&comments)`}},
		{"Count in a loop", func(db *gorm.DB) {
			for _, p := range find[Post](db) {
				var n int64
				db.Model(&Comment{}).Where("post_id = ?", p.ID).Count(&n)
			}
		}, []string{`n_plus_one 6/6 db.Model(&Comment{}).Select("post_id, count(*)").Where("post_id IN ?", keys).Group("post_id")`}},
		{"IN lists of changing length", func(db *gorm.DB) {
			for i := range 6 {
				db.Find(&[]Author{}, "id IN ?", []int{1, 2, 3, 4, 5, 6}[:i+1])
			}
		}, []string{`n_plus_one 6/6 db.Where("id IN ?", keys).Find(&authors)`}},
		{"chunks of long IN lists", func(db *gorm.DB) {
			for i := range 6 {
				ids := make([]int, 200)
				for j := range ids {
					ids[j] = i*200 + j
				}
				db.Find(&[]Author{}, "id IN ?", ids)
			}
		}, nil},
		{"inserts", func(db *gorm.DB) {
			for i := range 5 {
				db.Create(&Badge{Name: fmt.Sprint("loop ", i)})
			}
		}, []string{`batch_this 5/5 db.CreateInBatches(&badges, 100)`}},
		{"inserts of CreateInBatches", func(db *gorm.DB) {
			var badges []Badge
			for i := range 20 {
				badges = append(badges, Badge{Name: fmt.Sprint("batch ", i)})
			}
			db.CreateInBatches(&badges, 3)
		}, nil},
		{"inserts of several rows that mostly are there", func(db *gorm.DB) {
			for i := range 7 { // the database tells of one row
				db.Clauses(clause.OnConflict{DoNothing: true}).Create(&[]Tag{{Name: "there"}, {Name: fmt.Sprint("new ", i)}})
			}
		}, nil},
		{"rows that could be the parents, loaded after the loop", func(db *gorm.DB) {
			for i := range 6 {
				byID(db, i)
			}
			find[Post](db)
		}, []string{`n_plus_one 6/6 db.Where("id IN ?", keys).Find(&authors)`}},
		{"rows that are at the other end of the relation", func(db *gorm.DB) {
			find[Post](db.Limit(1)) // GORM learns that posts have comments, and notes it at both
			for _, c := range find[Comment](db.Where("post_id <= ?", 6).Order("id").Limit(12)) {
				db.Where("post_id = ?", c.PostID).Find(&[]Comment{})
			}
		}, []string{`n_plus_one 12/6 db.Where("post_id IN ?", keys).Find(&comments)`}},
		{"updates", func(db *gorm.DB) {
			for i := range 5 {
				db.Model(&Post{}).Where("id = ?", i).Update("views", 7)
			}
		}, []string{`batch_this 5/5 db.Model(&Post{}).Where("id IN ?", keys).Updates(values)`}},
		{"deletes", func(db *gorm.DB) {
			for i := range 5 {
				db.Delete(&Image{}, 1000+i)
			}
		}, []string{`batch_this 5/5 db.Where("id IN ?", keys).Delete(&Image{})`}},
		{"FindInBatches", func(db *gorm.DB) {
			var cs []Comment
			db.FindInBatches(&cs, 2, func(*gorm.DB, int) error { return nil })
		}, nil},
		{"FindInBatches with a condition", func(db *gorm.DB) {
			var cs []Comment
			db.Where("body = ?", "a").FindInBatches(&cs, 1+1, func(*gorm.DB, int) error { return nil })
		}, nil},
		{"FindInBatches in a loop", func(db *gorm.DB) {
			for i := range 6 {
				var cs []Comment
				db.Where("post_id = ?", i).FindInBatches(&cs, 10, func(*gorm.DB, int) error { return nil })
			}
		}, []string{`n_plus_one 6/6 db.Where("post_id IN ?", keys).Find(&comments)`}},
		{"a loop in a callback of FindInBatches", func(db *gorm.DB) {
			var ps []Post
			db.FindInBatches(&ps, 2, func(*gorm.DB, int) error {
				for _, p := range ps {
					db.Where("post_id = ?", p.ID).Find(&p.Comments)
				}
				return nil
			})
		}, []string{`n_plus_one 6/6 db.Preload("Comments")`}},
		{"statements that fail", func(db *gorm.DB) {
			for i := range 6 {
				db.Exec("SELECT 1 / ?", i*0)
				db.Find(&[]Author{}, "no_such_column = ?", i)
			}
		}, nil},
		{"records that are not found", func(db *gorm.DB) {
			for i := range 6 {
				if err := db.First(&Author{}, 9000+i).Error; !errors.Is(err, gorm.ErrRecordNotFound) {
					panic(err)
				}
			}
		}, []string{`n_plus_one 6/6 db.Where("id IN ?", keys).Find(&authors)`}},
		{"a transaction that is tried again", func(db *gorm.DB) {
			for range 6 {
				_ = db.Transaction(func(tx *gorm.DB) error {
					byID(tx, 1)
					tx.Create(&Badge{ID: 5000, Name: "retried"})
					return errors.New("serialization failure")
				})
			}
		}, nil},
		{"a loop over several tables", func(db *gorm.DB) {
			for i := range 6 {
				db.Joins("JOIN posts ON posts.id = comments.post_id").Where("posts.author_id = ?", i).Find(&[]Comment{})
			}
		}, []string{`n_plus_one 6/6 `}},
		{"save points", func(db *gorm.DB) {
			_ = db.Transaction(func(tx *gorm.DB) error {
				for range 6 {
					_ = tx.Transaction(func(*gorm.DB) error { return nil })
				}
				return nil
			})
		}, nil},
		{"reads of the catalogue", func(db *gorm.DB) {
			for range 2 {
				for _, table := range []string{"authors", "posts", "comments", "badges", "images"} {
					db.Migrator().HasTable(table)
				}
			}
		}, nil},
		// The root has a place of its own, the depths share one.
		{"recursion", func(db *gorm.DB) { chain(db, 1, 6) }, []string{`n_plus_one 6/6 db.Where("id IN ?", keys).Find(&authors)`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, s := nplusone.Begin(t.Context(), tt.name)
			tt.run(db.WithContext(ctx))
			r := s.End()
			got := kindsOf(r)
			for _, w := range tt.want {
				if !strings.Contains(strings.Join(got, "\n")+"\n", w+"\n") {
					t.Errorf("no finding %q", w)
				}
			}
			if len(got) != len(tt.want) {
				t.Errorf("%d findings, want %d", len(got), len(tt.want))
			}
			if t.Failed() {
				t.Log("\n" + r.Text())
			}
		})
	}
}

// chain follows the managers of an author, each from the one before.
func chain(db *gorm.DB, id uint, depth int) {
	var a Author
	db.Take(&a, id)
	if depth > 0 {
		chain(db, *a.ManagerID, depth-1)
	}
}
