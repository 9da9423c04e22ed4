package resolver

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/sqltext"
)

// The replica is proven between the write and a COMMIT that nobody tells of.
func TestOwnWritesAreReadAfterACommitThatIsNotSeen(t *testing.T) {
	t.Parallel()
	g, ctx := lagging(t)
	n := int64(0)
	for name, write := range map[string]func(c *gorm.DB, n int64) error{
		"Begin on a connection": func(c *gorm.DB, n int64) error {
			tx := c.Begin()
			err := setN(tx, n)
			g.pauseProven(ctx)
			return errors.Join(err, tx.Commit().Error)
		},
		"BEGIN by hand": func(c *gorm.DB, n int64) error {
			err := errors.Join(c.Exec("BEGIN").Error, setN(c, n))
			g.pauseProven(ctx)
			return errors.Join(err, c.Exec("COMMIT").Error)
		},
	} {
		n++
		request := inScope(ctx, "request")
		must(t, g.db.WithContext(request).Connection(func(c *gorm.DB) error { return write(c, n) }))
		if got := g.read(request, 1); got.N != n {
			t.Errorf("%s: the scope reads %d after it wrote %d", name, got.N, n)
		}
		if seen, doubt := name == "BEGIN by hand", g.r.sessionAt(request).doubt.Load(); seen != (doubt == 0) {
			t.Errorf("%s: in doubt until %v", name, time.Duration(doubt))
		}
		g.goOn(ctx)
	}
}

func TestDoubtEndsWithItsTimeOrWithTheLastConnections(t *testing.T) {
	t.Parallel()
	var s session
	a, b := new(sql.Conn), new(sql.Conn)
	end := int64(100 + unseenFor)
	s.suspect(a, 100)
	s.suspect(b, 110)
	s.settle(a, 200)
	s.settle(new(sql.Conn), 250)
	if got := s.floor(300); got != 300 {
		t.Errorf("floor is %d while b is open, want now", got)
	}
	if got := s.floor(end + 500); got != end+10 {
		t.Errorf("floor is %d after its time, want the end of it %d", got, end+10)
	}
	s.settle(b, 400)
	if got := s.floor(500); got != 400 {
		t.Errorf("floor is %d after both ended, want that end", got)
	}
}

func TestTextsThatEndATransaction(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"COMMIT": true, "/* x */ end": true, "ROLLBACK": true, "abort": true, "COMMIT AND CHAIN": true,
		"ROLLBACK TO a": false, "PREPARE TRANSACTION 'x'": false, "COMMIT; UPDATE items SET n = 1": false, "BEGIN": false, "SELECT 1": false,
	} {
		if got := endsTransaction(sqltext.Analyze(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if endsTransaction(nil) {
		t.Error("nothing ends one")
	}
}
