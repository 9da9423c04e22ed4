package nplusone_test

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/nplusone"
)

type Author struct {
	ID        uint
	Name      string
	ManagerID *uint
	Manager   *Author
	Team      []Author `gorm:"foreignKey:ManagerID"`
	Profile   Profile
	Posts     []Post
	Badges    []Badge `gorm:"many2many:author_badges"`
	Images    []Image `gorm:"polymorphic:Owner"`
	DeletedAt gorm.DeletedAt
}

type Profile struct {
	ID       uint
	AuthorID uint
	Bio      string
}

type Post struct {
	ID       uint
	Title    string
	AuthorID uint
	Author   Author
	Comments []Comment
	Images   []Image `gorm:"polymorphic:Owner"`
	Views    int
}

type Comment struct {
	ID     uint
	PostID uint
	Body   string
}

type Badge struct {
	ID   uint
	Name string
}

// Tag cannot be inserted twice.
type Tag struct {
	ID   uint
	Name string `gorm:"uniqueIndex"`
}

type Image struct {
	ID        uint
	OwnerID   uint
	OwnerType string
}

// Order has a composite key.
type Order struct {
	TenantID int    `gorm:"primaryKey;autoIncrement:false"`
	Number   int    `gorm:"primaryKey;autoIncrement:false"`
	Lines    []Line `gorm:"foreignKey:TenantID,OrderNumber;references:TenantID,Number"`
}

type Line struct {
	ID          uint
	TenantID    int
	OrderNumber int
}

// Ticket has a table and a foreign key of its own naming.
type Ticket struct {
	ID         uint
	AssignedTo uint   `gorm:"column:assigned_to"`
	Assignee   Author `gorm:"foreignKey:AssignedTo"`
}

func (Ticket) TableName() string { return "public.crm_tickets" }

// Review leads to one table in two ways.
type Review struct {
	ID       uint
	AuthorID uint
	Author   Author
	EditorID uint
	Editor   Author
}

// rowCount is the number of rows of each kind, above the threshold.
const rowCount = 6

const libraryName = "library"

var libraryOnce sync.Once

// library opens the package's database of authors and what belongs to them. It
// is filled by the first test; tests may add rows, and change none that is not
// their own in a way that another could see.
func library(tb testing.TB, cfg nplusone.Config, opts ...func(*gorm.Config)) (*gorm.DB, *nplusone.Detector) {
	tb.Helper()
	c := testbed.SharedCluster(tb)
	dsn := c.Primary().DSN(libraryName)
	libraryOnce.Do(func() {
		if err := c.CreateDatabase(tb.Context(), libraryName); err != nil {
			tb.Fatal(err)
		}
		fill(tb, open(tb, dsn))
	})
	db := open(tb, dsn, opts...)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	d := nplusone.New(cfg)
	if err := db.Use(d); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.Close() })
	return db, d
}

func open(tb testing.TB, dsn string, opts ...func(*gorm.Config)) *gorm.DB {
	tb.Helper()
	cfg := &gorm.Config{Logger: logger.Discard}
	for _, o := range opts {
		o(cfg)
	}
	db, err := gorm.Open(postgres.Open(dsn), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	sqlDB, err := db.DB()
	if err != nil {
		tb.Fatal(err)
	}
	sqlDB.SetMaxOpenConns(4)
	tb.Cleanup(func() { _ = sqlDB.Close() })
	return db
}

func fill(tb testing.TB, db *gorm.DB) {
	tb.Helper()
	must := func(tx *gorm.DB) {
		tb.Helper()
		if tx.Error != nil {
			tb.Fatal(tx.Error)
		}
	}
	if err := db.AutoMigrate(&Badge{}, &Tag{}, &Author{}, &Profile{}, &Post{}, &Comment{}, &Image{}, &Order{}, &Line{}, &Ticket{}, &Review{}); err != nil {
		tb.Fatal(err)
	}
	var authors []Author
	for i := range rowCount {
		authors = append(authors, Author{Name: fmt.Sprint("author ", i), Profile: Profile{Bio: "bio"}, Badges: []Badge{{Name: fmt.Sprint("badge ", i)}}, Images: []Image{{}}})
	}
	must(db.Create(&authors))
	for i := range authors[1:] {
		must(db.Model(&authors[i+1]).Update("manager_id", authors[i].ID))
	}
	must(db.Model(&authors[0]).Update("manager_id", authors[rowCount-1].ID))
	var posts []Post
	for i := range authors {
		posts = append(posts, Post{Title: fmt.Sprint("post ", i), AuthorID: authors[i].ID, Comments: []Comment{{Body: "a"}, {Body: "b"}}, Images: []Image{{}}})
	}
	must(db.Create(&posts))
	for i := range authors {
		must(db.Create(&Order{TenantID: 1 + i%2, Number: i, Lines: []Line{{}, {}}}))
		must(db.Create(&Ticket{AssignedTo: authors[i].ID}))
		must(db.Create(&Review{AuthorID: authors[i].ID, EditorID: authors[rowCount-1-i].ID}))
	}
}

// waitFor polls until done, or fails after some seconds.
func waitFor(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); {
		if time.Now().After(deadline) {
			tb.Fatalf("%s did not happen", what)
		}
		time.Sleep(time.Millisecond)
	}
}
