package main

import (
	"encoding/json"
	"errors"
	"net/http"

	"gorm.io/gorm"

	"github.com/gorminfra/infra"
)

// The shop's models. Nothing in them knows of the plugin.
type (
	Category struct {
		ID   uint
		Name string
	}
	Product struct {
		ID         uint
		Name       string
		PriceCents int64
		CategoryID uint
		Category   *Category `json:",omitempty"`
	}
	Customer struct {
		ID   uint
		Name string
	}
	Order struct {
		ID         uint
		CustomerID uint
		Customer   Customer
		TotalCents int64
	}
)

// shop is an ordinary HTTP API on an ordinary *gorm.DB.
type shop struct{ db *gorm.DB }

func (s shop) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products/{id}", s.product)
	mux.HandleFunc("POST /products/{id}/price/{cents}", s.setPrice)
	mux.HandleFunc("GET /orders", s.orders)
	mux.HandleFunc("GET /orders/preloaded", s.ordersPreloaded)
	mux.HandleFunc("GET /bestsellers", s.bestsellers)
	return mux
}

// product reads one product. Its table has a rule in the plugin's Config, so the
// answer may come from memory.
func (s shop) product(w http.ResponseWriter, r *http.Request) {
	var p Product
	err := s.db.WithContext(r.Context()).First(&p, r.PathValue("id")).Error
	answer(w, r, p, err)
}

// setPrice writes, and the next reader sees it.
func (s shop) setPrice(w http.ResponseWriter, r *http.Request) {
	err := s.db.WithContext(r.Context()).Model(&Product{}).
		Where("id = ?", r.PathValue("id")).Update("price_cents", r.PathValue("cents")).Error
	answer(w, r, "ok", err)
}

// orders asks for the customer of each order one by one: the mistake that the
// N+1 report is about.
func (s shop) orders(w http.ResponseWriter, r *http.Request) {
	db := s.db.WithContext(r.Context())
	var orders []Order
	err := db.Order("id").Limit(20).Find(&orders).Error
	for i := range orders {
		if err == nil {
			err = db.First(&orders[i].Customer, orders[i].CustomerID).Error
		}
	}
	answer(w, r, orders, err)
}

// ordersPreloaded is what the report proposes.
func (s shop) ordersPreloaded(w http.ResponseWriter, r *http.Request) {
	var orders []Order
	err := s.db.WithContext(r.Context()).Preload("Customer").Order("id").Limit(20).Find(&orders).Error
	answer(w, r, orders, err)
}

// bestsellers compares every product with every other, without an index.
func (s shop) bestsellers(w http.ResponseWriter, r *http.Request) {
	var names []string
	err := s.db.WithContext(r.Context()).Raw(`
		SELECT p.name FROM products p
		JOIN products q ON q.price_cents < p.price_cents
		GROUP BY p.id ORDER BY count(*) DESC LIMIT ?`, 3).Scan(&names).Error
	answer(w, r, names, err)
}

func answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	case infra.WriteLimited(w, r, err):
	case errors.Is(err, gorm.ErrRecordNotFound):
		http.NotFound(w, r)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
