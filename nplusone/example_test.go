package nplusone_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log/slog"

	"github.com/gorminfra/infra/nplusone"
)

type Writer struct {
	ID   uint
	Name string
}

type Essay struct {
	ID       uint
	Title    string
	WriterID uint
	Writer   Writer
}

func Example() {
	db, closeDB := openFake(map[string]table{
		"essays":  {[]string{"id", "title", "writer_id"}, [][]driver.Value{{int64(1), "A", int64(7)}, {int64(2), "B", int64(8)}, {int64(3), "C", int64(9)}}},
		"writers": {[]string{"id", "name"}, [][]driver.Value{{int64(7), "Ada"}}},
	})
	defer closeDB()

	detector := nplusone.New(nplusone.Config{Threshold: 3, Development: true, Logger: slog.New(slog.DiscardHandler), OnFinding: func(f nplusone.Finding) {
		fmt.Println(f.Kind, f.Count, f.Distinct)
		fmt.Println(f.Statement)
		fmt.Println(f.Fixes[0].Code, f.Fixes[0].Confidence)
	}})
	if err := db.Use(detector); err != nil {
		fmt.Println(err)
		return
	}
	defer detector.Close()

	ctx, s := nplusone.Begin(context.Background(), "GET /essays")
	var essays []Essay
	db.WithContext(ctx).Find(&essays)
	for i := range essays {
		db.WithContext(ctx).First(&essays[i].Writer, essays[i].WriterID)
	}
	report := s.End()
	fmt.Println(report.Route, report.Statements)
	// Output:
	// n_plus_one 3 3
	// SELECT * FROM "writers" WHERE "writers"."id" = ? ORDER BY "writers"."id" LIMIT ?
	// db.Preload("Writer") high
	// GET /essays 4
}
