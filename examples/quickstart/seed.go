package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

const (
	products  = 3_000
	customers = 500
	orders    = 2_000
)

// open makes a database in a file and fills it.
func open(file string) (*gorm.DB, error) {
	db, err := gorm.Open(sqlite.Open(file+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)"), &gorm.Config{
		Logger: logger.Discard, // the plugin's slow log is what speaks here
	})
	if err != nil {
		return nil, err
	}
	if err := db.AutoMigrate(&Category{}, &Product{}, &Customer{}, &Order{}); err != nil {
		return nil, err
	}
	rnd := rand.New(rand.NewPCG(1, 2)) // the same shop each time
	cs := make([]Category, 10)
	for i := range cs {
		cs[i].Name = fmt.Sprintf("Category %d", i+1)
	}
	ps := make([]Product, products)
	for i := range ps {
		ps[i] = Product{Name: fmt.Sprintf("Product %d", i+1), PriceCents: 100 + rnd.Int64N(50_000), CategoryID: uint(1 + i%len(cs))}
	}
	us := make([]Customer, customers)
	for i := range us {
		us[i].Name = fmt.Sprintf("Customer %d", i+1)
	}
	ods := make([]Order, orders)
	for i := range ods {
		ods[i] = Order{CustomerID: uint(1 + rnd.IntN(customers)), TotalCents: 100 + rnd.Int64N(90_000)}
	}
	return db, db.Transaction(func(tx *gorm.DB) error {
		for _, rows := range []any{&cs, &ps, &us, &ods} {
			if err := tx.Omit("Category", "Customer").CreateInBatches(rows, 500).Error; err != nil {
				return err
			}
		}
		return nil
	})
}
