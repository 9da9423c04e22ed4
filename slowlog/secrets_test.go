package slowlog

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func TestNoValueIsKeptAnywhere(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	out := &lines{}
	var sunk []Entry
	l := use(t, db, Config{
		Threshold: 1, Explain: Analyze, Logger: slog.New(slog.NewJSONHandler(out, nil)),
		User: func(context.Context) string { return "topsecret-user" },
		Sink: func(_ context.Context, e Entry) { sunk = append(sunk, e) },
	})
	var w []wolf
	var n int64
	for _, run := range []func() error{
		func() error { return db.Where("name = ?", "topsecret").Find(&w).Error },
		func() error { return db.Where("name = 'topsecret' AND pack IN (424242, 424243)").Find(&w).Error },
		func() error {
			return db.Raw("SELECT count(*) FROM wolves WHERE name = $x$topsecret$x$ -- topsecret\n GROUP BY 'topsecret' || name ORDER BY name = 'topsecret'").Scan(&n).Error
		},
		func() error { return db.Create(&wolf{Name: "topsecret"}).Error },
		func() error { return db.Exec("SET application_name = topsecret").Error },
		func() error { return db.Table("wolves AS w, (SELECT 'topsecret' AS s) x").Count(&n).Error },
		func() error { return db.Raw("SELECT to_char(now(), 'topsecret')").Scan(&w).Error },
	} {
		_ = run()
	}
	for _, run := range []func() error{
		func() error { return db.Exec("SELECT 'topsecret'::int").Error },
		func() error {
			return db.Exec("INSERT INTO wolves (id, name, pack) VALUES (1, 'topsecret', 424242)").Error
		},
		func() error { return db.Exec("SELECT 'topsecret").Error },
	} {
		if run() == nil {
			t.Fatal("no error")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Explained < 3 || s.Slow != 10 {
		t.Fatalf("%+v", s)
	}
	var all bytes.Buffer
	for _, e := range slices.Concat(l.Entries(), sunk) {
		fmt.Fprintf(&all, "%+v %+v\n", e, e.Plan)
	}
	for _, total := range l.Top(100) {
		fmt.Fprintf(&all, "%+v %+v\n", total, total.Plan)
	}
	all.Write(out.buf.Bytes())
	for _, secret := range []string{"topsecret", "424242", "424243"} {
		for line := range strings.Lines(all.String()) {
			if strings.Contains(line, secret) {
				t.Errorf("%s came through: %s", secret, line)
			}
		}
	}
}
