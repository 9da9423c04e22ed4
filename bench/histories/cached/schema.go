package cached

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
)

// What a write touches is written in the schema, which changes meanwhile, by the
// hand of one instance: whether a write of a root reaches its leaf is said by a
// foreign key, and whether it shows in a view by the view's definition. The others
// have to know by the time at which they write the next root. Nobody caches roots.

type (
	// Root has the version and the writer of its leaf, in one number; see token.
	Root struct {
		ID    uint16 `gorm:"primaryKey;autoIncrement:false"`
		Token int64
	}
	// Leaf follows its root, by ON UPDATE CASCADE or by a statement of its own.
	Leaf struct {
		ID    uint16 `gorm:"primaryKey;autoIncrement:false"`
		Grp   int8
		Token int64
	}
	// Shown is a row of the view: of the leaves or of the stocks, and one that says
	// which definition of the view it is.
	Shown struct {
		ID      uint16 // as in cells
		Grp     int8
		Version uint32
		Writer  uint32
	}
)

// TableName implements gorm's Tabler.
func (Leaf) TableName() string { return "leaves" }

// TableName implements gorm's Tabler.
func (Shown) TableName() string { return "shown" }

const tokenBits = 32

func (l Leaf) cell() cell {
	return cell{firstLeaf + l.ID, l.Grp, uint32(l.Token >> tokenBits), uint32(l.Token)}
}

func (s Shown) cell() cell { return cell{s.ID, s.Grp, s.Version, s.Writer} }

// schema is a definition of what may change.
type schema struct {
	Version uint32
	Cascade bool // the foreign key's action; otherwise there is none
	Leaves  bool // what the view shows, not the stocks
}

// tables makes what schemas change, in its first state.
func (s schema) tables() string {
	return fmt.Sprintf(`
		CREATE TABLE roots (id int PRIMARY KEY, token bigint NOT NULL, UNIQUE (id, token));
		CREATE TABLE leaves (id int PRIMARY KEY, grp int NOT NULL, token bigint NOT NULL, CONSTRAINT follows %s);
		INSERT INTO roots SELECT i, 0 FROM generate_series(0, %d) i;
		INSERT INTO leaves SELECT id, id %% %d, 0 FROM roots;
		%s`, s.foreignKey(), leaves-1, groups, s.view(0))
}

func (s schema) foreignKey() string {
	action := "NO ACTION"
	if s.Cascade {
		action = "CASCADE"
	}
	return "FOREIGN KEY (id, token) REFERENCES roots (id, token) ON UPDATE " + action + " DEFERRABLE INITIALLY DEFERRED"
}

func (s schema) alter() string {
	return "ALTER TABLE leaves DROP CONSTRAINT follows, ADD CONSTRAINT follows " + s.foreignKey()
}

func (s schema) view(writer uint32) string {
	of := fmt.Sprintf("SELECT id + %d, grp, version, writer FROM stocks", items)
	if s.Leaves {
		of = fmt.Sprintf("SELECT id + %d, grp, token >> %d, token & %d FROM leaves", firstLeaf, tokenBits, int64(1)<<tokenBits-1)
	}
	return fmt.Sprintf("CREATE OR REPLACE VIEW shown AS SELECT %d AS id, %d AS grp, %d::bigint AS version, %d::bigint AS writer UNION ALL %s",
		viewRow, firstGroup(viewRow), s.Version, writer, of)
}

// ofLeaves reports whether a query reads leaves or the view.
func ofLeaves(query uint16) bool {
	return query >= firstLeaf && query < firstItems || query >= firstLeaves
}

// pickLeaves chooses one of a group's.
func (s *session) pickLeaves(group uint16) uint16 {
	switch s.random.IntN(4) {
	case 0:
		return firstLeaves + group
	case 1:
		return firstShown + group
	}
	return firstLeaf + group + groups*uint16(s.random.IntN(leaves/groups))
}

func answerOfLeaves(db *gorm.DB, o *op) error {
	switch q := o.Query; {
	case q < firstItems:
		var l Leaf
		return one(db.First(&l, q-firstLeaf).Error, o, func() cell { return l.cell() })
	case q < firstShown:
		var found []Leaf
		err := db.Where("grp = ?", groupOf(q)).Order("id").Find(&found).Error
		for _, l := range found {
			o.Cells = append(o.Cells, l.cell())
		}
		return err
	default:
		var found []Shown
		err := db.Where("grp IN ?", []int8{groupOf(q), firstGroup(viewRow)}).Find(&found).Error
		for _, s := range found {
			o.Cells = append(o.Cells, s.cell())
		}
		return err
	}
}

// writeRoot makes the next version of a leaf by its root alone, and of both where
// the foreign key refuses that.
func (s *session) writeRoot(db *gorm.DB, o *op) error {
	number := s.group() + groups*uint16(s.random.IntN(leaves/groups))
	o.Commit = o.Start
	r, err := bumpRoot(db, number, o.nextID(1))
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "23503" {
		o.Commit = s.w.clock.Now()
		err = db.Transaction(func(tx *gorm.DB) error {
			if r, err = bumpRoot(tx, number, o.nextID(2)); err != nil {
				return err
			}
			return tx.Model(&Leaf{}).Where("id = ?", number).UpdateColumn("token", r.Token).Error
		})
	}
	if err == nil {
		o.Cells = []cell{Leaf{number, firstGroup(firstLeaf + number), r.Token}.cell()}
	}
	return err
}

func bumpRoot(db *gorm.DB, number uint16, writer uint32) (r Root, err error) {
	err = db.Raw("UPDATE roots SET token = (((token >> ?) + 1) << ?) + ? WHERE id = ? RETURNING *", tokenBits, tokenBits, writer, number).Scan(&r).Error
	return r, err
}

// change makes the schema another one, and tries again where a writer stood in its
// way.
func (s *session) change(to schema) (err error) {
	for range 10 {
		err = s.writeBy(func(db *gorm.DB, o *op) error {
			o.Commit = o.Start
			return db.Exec(to.alter()).Error
		})
		if err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	for range 10 {
		err = s.writeBy(func(db *gorm.DB, o *op) error {
			o.Commit = o.Start
			writer := o.nextID(1)
			err := db.Exec(to.view(writer)).Error
			if err == nil {
				o.Cells = []cell{{viewRow, firstGroup(viewRow), to.Version, writer}}
			}
			return err
		})
		if err == nil {
			break
		}
	}
	return err
}

// changeSchema has one instance change what a write touches, a few times, while all
// read where the next write of another is to be.
func changeSchema(ctx context.Context, p *parent) error { return p.changeSchema(ctx, false) }

// changeSchemaOfTheDeaf is changeSchema in which one of the others hears no message.
func changeSchemaOfTheDeaf(ctx context.Context, p *parent) error { return p.changeSchema(ctx, true) }

func (p *parent) changeSchema(ctx context.Context, deaf bool) error {
	err := p.askAll(ctx, "meet")
	for n := 0; n < 2 && err == nil; n++ { // to and fro
		err = p.changeOnce(ctx, deaf)
	}
	return errors.Join(err, p.askAll(ctx, "calm"))
}

func (p *parent) changeOnce(ctx context.Context, deaf bool) error {
	if err := p.between(ctx, lease, 2*lease); err != nil {
		return err
	}
	p.schema = schema{Version: p.schema.Version + 1, Cascade: !p.schema.Cascade, Leaves: p.random.IntN(2) == 0}
	others := p.random.Perm(len(p.workers))
	if deaf { // the first of them, that can be made so
		i := slices.IndexFunc(others, func(i int) bool { return i%kinds == 0 })
		others[0], others[i] = others[i], others[0]
		for _, proxy := range p.workers[others[0]].messages {
			proxy.Blackhole()
		}
	}
	last := len(others) - 1
	err := p.command(ctx, p.workers[others[last]], command{Do: "change", Schema: &p.schema})
	others = others[:last]
	// One after the other, as each would tell of what the one before has left out:
	// some before they can have heard of it, some when it has been read anew.
	for n := range 2 * len(others) {
		pause := time.Duration(n) * lease / 4
		err = errors.Join(err, p.between(ctx, pause, pause+lease/4))
		if err == nil {
			err = p.command(ctx, p.workers[others[n/2]], command{Do: "graft"})
		}
		err = errors.Join(err, p.between(ctx, 3*lease/2, 2*lease))
	}
	if deaf {
		for _, proxy := range p.workers[others[0]].messages {
			err = errors.Join(err, proxy.Restore())
		}
	}
	return err
}

// command has a worker do something, and waits until it has.
func (p *parent) command(ctx context.Context, w *child, c command) error {
	w.process.Tell(c)
	return w.await(ctx, c.Do)
}
