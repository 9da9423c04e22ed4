package slowlog_test

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/slowlog"
)

func Example() {
	db, closeShop := openShop()
	defer closeShop()
	log := slowlog.New(slowlog.Config{
		Threshold: 1, // a nanosecond: all is slow here
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err := db.Use(log); err != nil {
		fmt.Println(err)
		return
	}
	defer log.Close() //nolint:errcheck // an example

	var names []string
	for _, customer := range []string{"ann", "bob"} {
		db.Table("orders").Where("customer = ?", customer).Pluck("name", &names)
	}

	for _, t := range log.Top(10) {
		fmt.Printf("%d times: %s\n", t.Count, t.Shape)
	}
	newest := log.Entries()[0]
	fmt.Println(newest.Operation, "of", newest.Table, "on", newest.Node, "at", filepath.Base(newest.Site.File))
	// Output:
	// 2 times: SELECT "name" FROM "orders" WHERE customer = ?
	// select of orders on primary at example_test.go
}

// openShop stands for gorm.Open with a DSN.
func openShop() (db *gorm.DB, closeShop func()) {
	sql.Register("slowlog-example", emptyDriver{})
	conn, err := sql.Open("slowlog-example", "")
	if err != nil {
		panic(err)
	}
	db, err = gorm.Open(postgres.New(postgres.Config{Conn: conn}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		panic(err)
	}
	return db, func() { _ = conn.Close() }
}

// emptyDriver answers every query with no rows.
type emptyDriver struct{}

func (d emptyDriver) Open(string) (driver.Conn, error)           { return d, nil }
func (d emptyDriver) Prepare(string) (driver.Stmt, error)        { return d, nil }
func (d emptyDriver) Close() error                               { return nil }
func (d emptyDriver) Begin() (driver.Tx, error)                  { return nil, errors.ErrUnsupported }
func (d emptyDriver) NumInput() int                              { return -1 }
func (d emptyDriver) Exec([]driver.Value) (driver.Result, error) { return driver.ResultNoRows, nil }
func (d emptyDriver) Query([]driver.Value) (driver.Rows, error)  { return d, nil }
func (d emptyDriver) Columns() []string                          { return []string{"name"} }
func (d emptyDriver) Next([]driver.Value) error                  { return io.EOF }
