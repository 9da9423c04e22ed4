package slowlog

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

type den struct {
	ID     int64
	Wolves []slowWolf `gorm:"foreignKey:DenID"`
}

type slowWolf struct {
	ID    int64
	DenID int64
}

func TestPreloadIsNotBlamedOnItsParent(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	mustExec(t, db, `CREATE TABLE dens (id bigint PRIMARY KEY)`)
	mustExec(t, db, `INSERT INTO dens VALUES (1)`)
	mustExec(t, db, `CREATE VIEW slow_wolves AS SELECT 1::bigint AS id, 1::bigint AS den_id FROM (SELECT pg_sleep(0.3)) s`)
	l := use(t, db, Config{Threshold: 250 * time.Millisecond})
	var dens []den
	if err := db.Preload("Wolves").Find(&dens).Error; err != nil {
		t.Fatal(err)
	}
	if len(dens) != 1 || len(dens[0].Wolves) != 1 {
		t.Fatalf("dens %+v", dens)
	}
	var tables []string
	for _, e := range l.Entries() {
		tables = append(tables, e.Table)
		if e.Duration < 300*time.Millisecond {
			t.Errorf("duration %v of a statement that sleeps 300 ms", e.Duration)
		}
	}
	if !slices.Equal(tables, []string{"slow_wolves"}) {
		t.Fatalf("slow tables %v, want the preload's alone", tables)
	}
}

func TestRowsAreTimedToTheirClose(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	const pause = 300 * time.Millisecond
	l := use(t, db, Config{Threshold: pause})
	_, _, line, _ := runtime.Caller(0)
	rows, err := db.Raw("SELECT id FROM wolves ORDER BY id LIMIT 2").Rows()
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Next() {
		t.Fatal("no row")
	}
	time.Sleep(pause) //nolint:forbidigo // the caller's own work, which holds the connection
	if n := len(l.Entries()); n != 0 {
		t.Fatalf("%d entries before Close", n)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	entries := l.Entries()
	if len(entries) != 1 || entries[0].Duration < pause {
		t.Fatalf("entries %+v, want one of %v or more", entries, pause)
	}
	if site := entries[0].Site.String(); !strings.Contains(site, fmt.Sprintf("owntime_test.go:%d ", line+1)) {
		t.Errorf("site %s, want line %d, where the loop began", site, line+1)
	}
}

func TestSlowStatementOnRealTime(t *testing.T) {
	t.Parallel()
	db, _, _ := openPostgres(t)
	l := use(t, db, Config{Threshold: 200 * time.Millisecond})
	mustExec(t, db, "SELECT 1")
	mustExec(t, db, "SELECT pg_sleep(0.2)")
	if e := l.Entries(); len(e) == 0 || e[0].Duration < 200*time.Millisecond || e[0].Shape != "SELECT pg_sleep(?)" {
		t.Fatalf("entries %+v", e)
	}
}
