package nplusone_test

import (
	"strings"
	"testing"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/nplusone"
)

// program is a loop over one relation, and the ways to write it without.
type program struct {
	name  string
	loop  func(db *gorm.DB)
	fixes []string // of the most telling finding
	sure  nplusone.Confidence
	clean []func(db *gorm.DB)
}

func find[T any](db *gorm.DB) []T {
	var all []T
	db.Find(&all)
	return all
}

func preloads[T any](names ...string) func(*gorm.DB) {
	return func(db *gorm.DB) {
		for _, n := range names {
			db = db.Preload(n)
		}
		find[T](db)
	}
}

func joins[T any](name string) func(*gorm.DB) {
	return func(db *gorm.DB) { find[T](db.Joins(name)) }
}

func programs() []program {
	return []program{
		{
			name: "belongs to",
			loop: func(db *gorm.DB) {
				for _, p := range find[Post](db) {
					db.First(&p.Author, p.AuthorID)
				}
			},
			fixes: []string{`db.Preload("Author")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Post]("Author"), joins[Post]("Author")},
		},
		{
			name: "belongs to, by association mode",
			loop: func(db *gorm.DB) {
				for _, p := range find[Post](db) {
					_ = db.Model(&p).Association("Author").Find(&p.Author)
				}
			},
			fixes: []string{`db.Preload("Author")`}, sure: nplusone.High,
		},
		{
			name: "has one",
			loop: func(db *gorm.DB) {
				for _, a := range find[Author](db) {
					db.Where("author_id = ?", a.ID).Take(&a.Profile)
				}
			},
			fixes: []string{`db.Preload("Profile")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Author]("Profile"), joins[Author]("Profile")},
		},
		{
			name: "has many",
			loop: func(db *gorm.DB) {
				for _, p := range find[Post](db) {
					db.Where(&Comment{PostID: p.ID}).Find(&p.Comments)
				}
			},
			fixes: []string{`db.Preload("Comments")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Post]("Comments")},
		},
		{
			name: "has many, with a condition",
			loop: func(db *gorm.DB) {
				for _, p := range find[Post](db) {
					db.Where("post_id = ? AND body LIKE ?", p.ID, "a%").Find(&p.Comments)
				}
			},
			fixes: []string{`db.Preload("Comments")`}, sure: nplusone.Likely,
		},
		{
			name: "has many, in raw SQL",
			loop: func(db *gorm.DB) {
				for _, p := range find[Post](db) {
					db.Raw("SELECT * FROM comments WHERE post_id = ?", p.ID).Scan(&p.Comments)
				}
			},
			fixes: []string{`db.Preload("Comments")`}, sure: nplusone.High,
		},
		{
			name: "many to many",
			loop: func(db *gorm.DB) {
				for _, a := range find[Author](db) {
					_ = db.Model(&a).Association("Badges").Find(&a.Badges)
				}
			},
			fixes: []string{`db.Preload("Badges")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Author]("Badges")},
		},
		{
			name: "polymorphic",
			loop: func(db *gorm.DB) {
				find[Post](db) // has images, too: the type tells
				for _, a := range find[Author](db) {
					_ = db.Model(&a).Association("Images").Find(&a.Images)
				}
			},
			fixes: []string{`db.Preload("Images")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Author]("Images")},
		},
		{
			name: "self reference, upwards",
			loop: func(db *gorm.DB) {
				for _, a := range find[Author](db) {
					db.First(&a.Manager, a.ManagerID)
				}
			},
			fixes: []string{`db.Preload("Manager")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Author]("Manager"), joins[Author]("Manager")},
		},
		{
			name: "self reference, downwards",
			loop: func(db *gorm.DB) {
				for _, a := range find[Author](db) {
					db.Where("manager_id = ?", a.ID).Find(&a.Team)
				}
			},
			fixes: []string{`db.Preload("Team")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Author]("Team")},
		},
		{
			name: "composite key",
			loop: func(db *gorm.DB) {
				for _, o := range find[Order](db) {
					db.Where("tenant_id = ? AND order_number = ?", o.TenantID, o.Number).Find(&o.Lines)
				}
			},
			fixes: []string{`db.Preload("Lines")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Order]("Lines")},
		},
		{
			name: "custom foreign key and table",
			loop: func(db *gorm.DB) {
				for _, t := range find[Ticket](db) {
					db.First(&t.Assignee, t.AssignedTo)
				}
			},
			fixes: []string{`db.Preload("Assignee")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Ticket]("Assignee"), joins[Ticket]("Assignee")},
		},
		{
			name: "two relations to one table",
			loop: func(db *gorm.DB) {
				for _, r := range find[Review](db) {
					db.First(&r.Editor, r.EditorID)
				}
			},
			fixes: []string{`db.Preload("Author")`, `db.Preload("Editor")`}, sure: nplusone.Likely,
			clean: []func(*gorm.DB){preloads[Review]("Author", "Editor")},
		},
		{
			name: "nested, below a Preload",
			loop: func(db *gorm.DB) {
				for _, a := range find[Author](db.Preload("Posts")) {
					for _, p := range a.Posts {
						db.Where("post_id = ?", p.ID).Find(&p.Comments)
					}
				}
			},
			fixes: []string{`db.Preload("Posts.Comments")`}, sure: nplusone.High,
			clean: []func(*gorm.DB){preloads[Author]("Posts.Comments")},
		},
		{
			name: "nested, below a loop",
			loop: func(db *gorm.DB) {
				for _, a := range find[Author](db) {
					db.Where("author_id = ?", a.ID).Find(&a.Posts)
					for _, p := range a.Posts {
						db.Where("post_id = ?", p.ID).Find(&p.Comments)
					}
				}
			},
			fixes: []string{`db.Preload("Posts.Comments")`}, sure: nplusone.High,
		},
		{
			name: "soft deleted parents are left out",
			loop: func(db *gorm.DB) {
				for _, p := range find[Post](db) {
					db.Unscoped().Where("id = ?", p.AuthorID).Find(&p.Author)
				}
			},
			fixes: []string{`db.Preload("Author")`}, sure: nplusone.High,
		},
		{
			name: "a small model that could also be the parent",
			loop: func(db *gorm.DB) {
				db.First(&Author{}) // as an authentication does: one row explains no loop
				for _, p := range find[Post](db) {
					db.Where("post_id = ?", p.ID).Find(&p.Comments)
				}
			},
			fixes: []string{`db.Preload("Comments")`}, sure: nplusone.High,
		},
	}
}

func TestLoopOverARelationNamesItsPreload(t *testing.T) {
	t.Parallel()
	db, _ := library(t, nplusone.Config{Development: true})
	for _, p := range programs() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			ctx, s := nplusone.Begin(t.Context(), p.name)
			p.loop(db.WithContext(ctx))
			r := s.End()
			var found *nplusone.Finding
			for i, f := range r.Findings {
				if f.Fixes[0].Code == p.fixes[0] {
					found = &r.Findings[i]
				}
			}
			if found == nil {
				t.Fatalf("no finding with the fix %s in\n%s", p.fixes[0], r.Text())
			}
			if found.Kind != nplusone.NPlusOne || found.Count != rowCount || found.Distinct != rowCount {
				t.Errorf("%s: count %d, %d distinct; want %d of both", found.Kind, found.Count, found.Distinct, rowCount)
			}
			var codes []string
			for _, fix := range found.Fixes {
				codes = append(codes, fix.Code)
				if fix.Confidence != p.sure {
					t.Errorf("%s: confidence %s, want %s", fix.Code, fix.Confidence, p.sure)
				}
				if fix.Parent == nil || !strings.HasSuffix(fix.Parent.File, "relation_test.go") {
					t.Errorf("%s: the parents were loaded at %v", fix.Code, fix.Parent)
				}
			}
			if strings.Join(codes, ";") != strings.Join(p.fixes, ";") {
				t.Errorf("fixes %v, want %v", codes, p.fixes)
			}
			if found.Loop == nil || !strings.HasSuffix(found.Loop.File, "relation_test.go") || len(found.Samples) == 0 {
				t.Errorf("loop %v, samples %v", found.Loop, found.Samples)
			}
		})
		for i, clean := range p.clean {
			t.Run(p.name+[]string{", Preload", ", Joins"}[i], func(t *testing.T) {
				t.Parallel()
				ctx := nplusone.ForTest(t)
				clean(db.WithContext(ctx))
				nplusone.AssertNone(t, ctx)
			})
		}
	}
}
