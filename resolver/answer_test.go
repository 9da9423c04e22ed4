package resolver

import (
	"context"
	"errors"
	"io"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorminfra/infra/internal/testbed"
)

type note struct {
	ID   int64 `gorm:"primaryKey"`
	Text string
	Mark string `gorm:"default:cut_mark()"` // by the database, so that GORM asks for it
}

// Postgres may send the rows of a write before it commits: whoever has seen some
// of them does not know yet.
func TestR12WriteWhoseRowsBreakOffHasAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	must(t, c.Primary().Exec(deadline(t), g.name, `CREATE FUNCTION cut_mark() RETURNS text LANGUAGE sql AS $$ SELECT 'cut behind me' $$;
		CREATE TABLE notes (id bigserial PRIMARY KEY, text text, mark text DEFAULT cut_mark());
		CREATE FUNCTION take_note(text) RETURNS text LANGUAGE sql AS $$ INSERT INTO notes (text) VALUES ($1) RETURNING mark $$`))
	must(t, c.WaitCaughtUp(deadline(t)))
	const insert = "INSERT INTO notes (text) VALUES (?) RETURNING mark"
	for name, write := range map[string]func(db *gorm.DB, r *Resolver, text string) (marks int, err error){
		"Rows": func(db *gorm.DB, _ *Resolver, text string) (n int, err error) {
			rows, err := db.Raw(insert, text).Rows()
			if err != nil {
				return 0, err
			}
			for rows.Next() {
				n++
			}
			if err := rows.Err(); err != nil {
				return n, errors.Join(err, rows.Close())
			}
			return n, rows.Close()
		},
		"Rows that are closed": func(db *gorm.DB, _ *Resolver, text string) (n int, err error) {
			rows, err := db.Raw(insert, text).Rows()
			if err != nil {
				return 0, err
			}
			if rows.Next() {
				n++
			}
			return n, rows.Close()
		},
		"Row": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			var mark string
			return 1, db.Raw(insert, text).Row().Scan(&mark)
		},
		"Scan into a struct": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			return 1, db.Raw(insert, text).Scan(&note{}).Error
		},
		"Scan into a slice": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			return 1, db.Raw(insert, text).Scan(&[]note{}).Error
		},
		"Scan of a SELECT that calls what writes": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			var mark string
			return 1, db.Raw("SELECT take_note(?)", text).Scan(&mark).Error
		},
		"Find": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			return 1, db.Raw(insert, text).Find(&[]note{}).Error
		},
		"Create": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			return 1, db.Session(&gorm.Session{SkipDefaultTransaction: true}).Create(&note{Text: text}).Error
		},
		"Create of several": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			return 1, db.Session(&gorm.Session{SkipDefaultTransaction: true}).Create(&[]note{{Text: text}}).Error
		},
		"Create by the generic API": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			db = db.Session(&gorm.Session{SkipDefaultTransaction: true})
			return 1, gorm.G[note](db).Create(db.Statement.Context, &note{Text: text})
		},
		"Updates with RETURNING": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			must(t, db.Exec("INSERT INTO notes (text, mark) VALUES (?, 'x')", "before "+text).Error)
			db = db.Session(&gorm.Session{SkipDefaultTransaction: true})
			return 1, db.Model(&note{}).Clauses(clause.Returning{}).Where("text = ?", "before "+text).
				Updates(map[string]any{"text": text, "mark": gorm.Expr("cut_mark()")}).Error
		},
		"a handle of one's own": func(db *gorm.DB, r *Resolver, text string) (int, error) {
			conn, err := r.Conn(db.Statement.Context, Write)
			must(t, err)
			var mark string
			return 1, conn.QueryRowContext(db.Statement.Context, "INSERT INTO notes (text) VALUES ($1) RETURNING mark", text).Scan(&mark)
		},
		"prepared": func(db *gorm.DB, _ *Resolver, text string) (int, error) {
			var mark string
			return 1, db.Session(&gorm.Session{PrepareStmt: true}).Raw(insert, text).Row().Scan(&mark)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cutter := testbed.NewCutter(t, c.Primary().Addr(), "cut behind me")
			db, r := open(t, testbed.DSN(cutter.Addr(), g.name), Config{Replicas: DSNs(g.nodes...), Probe: patient, Pool: Pool{Min: -1}, Logger: quiet()})
			must(t, r.Ready(deadline(t)))
			there := func(text string) int64 {
				conn, err := c.Primary().Conn(deadline(t), g.name)
				must(t, err)
				defer conn.Close(context.Background())
				var n int64
				must(t, conn.QueryRow(deadline(t), "SELECT count(*) FROM notes WHERE text = $1", text).Scan(&n))
				return n
			}
			whole, broken := name+", whole", name+", broken"
			if n, err := write(db.WithContext(inScope(deadline(t), whole)), r, whole); n != 1 || err != nil || there(whole) != 1 {
				t.Fatalf("without a fault: %d rows shown, %v, %d rows there", n, err, there(whole))
			}
			ctx := inScope(deadline(t), broken)
			cutter.Cut(1)
			n, err := write(db.WithContext(ctx), r, broken)
			if n != 1 || cutter.Cuts() != 1 || !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d rows shown, cut %d times: %v, want an unknown outcome and what the driver says", n, cutter.Cuts(), err)
			}
			if floorOf(ctx, r) == 0 {
				t.Error("what may have happened is no write of the session")
			}
			eventually(t, "the write to have happened", func() bool { return there(broken) == 1 })
		})
	}
}

// What the server itself says about a write leaves nothing open.
func TestR12WriteThatTheServerRefusesBehindItsFirstRowsHasAKnownOutcome(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	must(t, c.Primary().Exec(deadline(t), g.name, `CREATE TABLE later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO later VALUES (1);
		CREATE FUNCTION add_later(int) RETURNS int LANGUAGE sql AS $$ INSERT INTO later VALUES ($1) RETURNING n $$`))
	for text, state := range map[string]string{
		"INSERT INTO later VALUES (2), (1) RETURNING n":                      "23505", // at its commit
		"SELECT add_later(10 + g) / (3 - g) FROM generate_series(1, 5) AS g": "22012", // at its third row
	} {
		rows, err := g.db.WithContext(inScope(deadline(t), state)).Raw(text).Rows()
		must(t, err)
		n := 0
		for rows.Next() {
			n++
		}
		var pg interface{ SQLState() string }
		if err := rows.Err(); n != 2 || errors.Is(err, ErrOutcomeUnknown) || !errors.As(err, &pg) || pg.SQLState() != state {
			t.Errorf("%s: %d rows and %v, want 2 and %s", text, n, err, state)
		}
		must(t, rows.Close())
	}
	var left int
	must(t, g.db.Raw("SELECT count(*) FROM later").Scan(&left).Error)
	if left != 1 {
		t.Errorf("%d rows are there, want the first", left)
	}
}
