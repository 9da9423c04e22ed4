package resolver

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/testbed"
)

const cutMark = "cut behind me"

type marked struct {
	ID   int64
	Name string
}

type branch struct {
	ID      int64
	Name    string
	OtherID int64
	Other   *marked
}

// eofScanner is a type whose decoder says what a broken connection says.
type eofScanner string

func (*eofScanner) Scan(any) error { return io.ErrUnexpectedEOF }

// GORM's own loop hands nothing out before it has ended: its caller has been shown
// no row yet when the connection breaks behind the first.
func TestR08AResultThatBreaksWhileGORMScansItIsReadOnceMore(t *testing.T) {
	t.Parallel()
	c := testbed.SharedCluster(t)
	g := newRig(t, c, nil)
	must(t, c.Primary().Exec(deadline(t), g.name, fmt.Sprintf(`CREATE TABLE markeds (id bigint, name text); INSERT INTO markeds VALUES (7, 'other');
		CREATE TABLE branches (id bigint, name text, other_id bigint); INSERT INTO branches VALUES (1, '%s', 7)`, cutMark)))
	must(t, c.WaitCaughtUp(deadline(t)))
	// three rows, and on the replica alone those that where names
	three := func(db *gorm.DB, where string) *gorm.DB {
		return db.Table(fmt.Sprintf(`(SELECT g AS id, '%s ' || g AS name FROM generate_series(1, 3) g WHERE %s) AS t`, cutMark, where))
	}
	onReplica := fmt.Sprintf("current_setting('port') = '%s'", c.Replica(0).Addr()[strings.LastIndex(c.Replica(0).Addr(), ":")+1:])
	names := []string{cutMark + " 1", cutMark + " 2", cutMark + " 3"}
	for _, tt := range []struct {
		what  string
		cuts  int64
		where string
		run   func(tx *gorm.DB) (got any, err error) // tx is of those three rows
		want  any                                    // nil: the driver's error
		again uint64
	}{
		{"structs", 1, "true", func(tx *gorm.DB) (any, error) {
			list := make([]marked, 0, 8)
			err := tx.Find(&list).Error
			return list, err
		}, []marked{{1, names[0]}, {2, names[1]}, {3, names[2]}}, 1},
		{"one struct", 1, "true", func(tx *gorm.DB) (any, error) {
			var one marked
			err := tx.Take(&one).Error
			return one, err
		}, marked{1, names[0]}, 1},
		{"maps", 1, "true", func(tx *gorm.DB) (any, error) {
			list := []map[string]any{{"mine": true}}
			err := tx.Select("name").Find(&list).Error
			return fmt.Sprint(list), err
		}, fmt.Sprint([]map[string]any{{"mine": true}, {"name": names[0]}, {"name": names[1]}, {"name": names[2]}}), 1},
		{"one map", 1, "true", func(tx *gorm.DB) (any, error) {
			one := map[string]any{}
			err := tx.Select("name").Take(&one).Error
			return one["name"], err
		}, names[0], 1},
		{"pluck", 1, "true", func(tx *gorm.DB) (any, error) {
			var list []string
			err := tx.Pluck("name", &list).Error
			return list, err
		}, names, 1},
		{"gone meanwhile, structs", 1, onReplica, func(tx *gorm.DB) (any, error) {
			var list []marked
			tx = tx.Find(&list)
			return fmt.Sprint(len(list), tx.RowsAffected), tx.Error
		}, "0 0", 1},
		// What the first attempt left in the struct would pass for an answer.
		{"gone meanwhile, one struct", 1, onReplica, func(tx *gorm.DB) (any, error) {
			err := tx.Take(&marked{}).Error
			return nil, err
		}, nil, 1},
		{"twice", 2, "true", func(tx *gorm.DB) (any, error) {
			var list []marked
			err := tx.Find(&list).Error
			return nil, err
		}, nil, 1},
		{"rows", 1, "true", func(tx *gorm.DB) (any, error) {
			rows, err := tx.Rows()
			if err != nil {
				return nil, err
			}
			defer rows.Close()
			for rows.Next() {
			}
			return nil, rows.Err()
		}, nil, 0},
		{"a struct with a relation", 1, "", func(tx *gorm.DB) (any, error) { return nil, tx.Joins("Other").Take(&branch{}).Error }, nil, 0},
		// A decoder that says EOF accuses no node.
		{"a decoder's EOF", 0, "true", func(tx *gorm.DB) (any, error) {
			var list []struct{ Name eofScanner }
			return nil, tx.Find(&list).Error
		}, nil, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			primary, replica := testbed.NewCutter(t, c.Primary().Addr(), cutMark), testbed.NewCutter(t, c.Replica(0).Addr(), cutMark)
			db, r := open(t, testbed.DSN(primary.Addr(), g.name), Config{
				Replicas: DSNs(testbed.DSN(replica.Addr(), g.name)), Probe: patient, Pool: Pool{Max: 8, Min: -1}, Logger: quiet(),
			})
			must(t, r.Ready(deadline(t)))
			eventually(t, "the replica to be in use", func() bool { return recovering(t, db.WithContext(inScope(deadline(t), "up"))) })
			primary.Cut(tt.cuts - 1)
			replica.Cut(min(tt.cuts, 1))
			tx := db.WithContext(inScope(deadline(t), tt.what))
			if tt.where != "" {
				tx = three(tx, tt.where)
			}
			got, err := tt.run(tx)
			again, up := uint64(0), true
			for _, n := range r.Nodes() {
				again += n.Decisions["retry"]
				up = up && n.Up
			}
			if cut := primary.Cuts() + replica.Cuts(); cut != tt.cuts || again != tt.again {
				t.Errorf("cut %d times, read again %d times", cut, again)
			}
			if !up && tt.cuts == 0 {
				t.Error("a node was ejected")
			}
			switch {
			case tt.want == nil && (!errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gorm.ErrRecordNotFound)):
				t.Errorf("%v, want the driver's error", err)
			case tt.want != nil && (err != nil || fmt.Sprint(got) != fmt.Sprint(tt.want)):
				t.Errorf("%v, %v, want %v", got, err, tt.want)
			}
		})
	}
}
